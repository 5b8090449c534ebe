//! `cronclave log repair`: gives up the data of one server, which then comes back as a new one.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::cli::{confirm, say};
use crate::id::ClusterId;
use crate::shell::disk::{Offline, RepairPlan, ToolError, parse_cluster};
use crate::shell::exit::ExitError;

/// The arguments of `cronclave log repair`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RepairArgs {
    /// The data directory of the stopped node
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// The cluster to come back to, if another goes on than it belonged to: the id that
    /// `cronclave raft recover` has printed
    #[arg(long, value_name = "ID", value_parser = parse_cluster)]
    cluster: Option<ClusterId>,
    /// Do not ask: the name of the node, as a confirmation
    #[arg(long, value_name = "NAME")]
    yes: Option<String>,
}

/// Shows what would be done, asks, and does it.
pub(crate) fn run(args: &RepairArgs) -> Result<(), ExitError> {
    let dir = Offline::open(&args.dir).map_err(ToolError::from)?;
    let plan = RepairPlan::new(&dir, args.cluster)?;
    say(&warning(&plan));
    let name = confirm::name_of_node(plan.name.as_ref(), args.yes.as_deref())?;
    let (cluster, keeps) = (plan.cluster, plan.keeps_identity());
    let aside = plan.perform(dir, &name).map_err(ToolError::from)?;
    let mut text = format!("\nDone. The old files are in {}.\n", aside.display());
    match (cluster, keeps) {
        (Some(cluster), true) => {
            let _ = writeln!(text, "Start {name}: it goes on in cluster {cluster}.");
        }
        (Some(cluster), false) => {
            let _ = writeln!(
                text,
                "Start {name} with retry-join naming a live server: it joins cluster {cluster} as\n\
                 a new server, fetches everything, and votes when it has caught up. It joins no\n\
                 other cluster and founds none."
            );
        }
        (None, _) => {
            let _ = writeln!(text, "Start {name} with retry-join naming a live server.");
        }
    }
    say(&text);
    Ok(())
}

fn warning(plan: &RepairPlan) -> String {
    let mut text = String::new();
    let name = plan.name.as_ref().map_or("a node that cannot be named", |name| name.as_str());
    let _ = writeln!(text, "Node {name}");
    for damage in &plan.damage {
        let _ = writeln!(text, "  {damage}");
    }
    if let (Some(old), Some(new)) = (plan.old_cluster, plan.cluster)
        && old != new
    {
        let _ = writeln!(text, "  moves from cluster {old} to cluster {new}");
    }
    if plan.keeps_identity() {
        text.push_str("\nIt keeps its identity, its journal and the results that wait.\n");
        return text;
    }
    text.push_str(&loss(plan));
    text.push_str(
        "\nIt comes back as a new server and fetches everything from its peers. So:\n  \
         - This is NOT for a single server: there is nobody to fetch from.\n  \
         - This is NOT for half of the servers or more at once: what only they had is lost.\n    \
         Repair one, wait until it votes again, and then the next.\n  \
         - Results of its own executions that it has not delivered yet are given up.\n",
    );
    if plan.cluster.is_none() {
        text.push_str(
            "  - Its cluster is not known, so nothing keeps it from founding one: start it\n    \
             with retry-join naming a live server, or give --cluster ID.\n",
        );
    }
    text
}

/// Which entries are given up.
fn loss(plan: &RepairPlan) -> String {
    let last = plan.survey.as_ref().and_then(|survey| survey.raft.last);
    if let Some(last) = last {
        return format!(
            "\nThis server gives up its copy of the entries up to {} (term {}).\n",
            last.index, last.term
        );
    }
    let Some(held) = plan.held else {
        return "\nThis server gives up its copy of every entry.\n".to_owned();
    };
    let mut text = String::from("\n");
    match held.unreadable {
        Some((from, Some(to))) => {
            let _ =
                writeln!(text, "Entries {from} to {to} cannot be read here, or not all of them.");
        }
        Some((from, None)) => {
            let _ = writeln!(text, "Entries from {from} on cannot be read here.");
        }
        None => {}
    }
    let _ = writeln!(
        text,
        "This server gives up its copy of all entries, from {} to {} at least.",
        held.first, held.last
    );
    text
}
