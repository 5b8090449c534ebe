//! `cronclave raft`: what a stopped server's log says about Raft, and the recovery of last resort.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;

use crate::cli::{confirm, say};
use crate::id::{ClusterId, LogIndex, NodeId, NodeName};
use crate::node::rescue::{NodeSurvey, Position};
use crate::shell::disk::{self, Offline, RecoverPlan, ToolError};
use crate::shell::exit::ExitError;

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum RaftCommand {
    /// Show how far the log of a stopped server goes, so that servers can be compared
    Show(ShowArgs),
    /// Go on with one server after the quorum is lost for good; may lose acknowledged writes
    Recover(RecoverArgs),
}

/// The arguments of `cronclave raft show`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ShowArgs {
    /// The data directory of the stopped server
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The arguments of `cronclave raft recover`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RecoverArgs {
    /// The data directory of the one server that is to go on
    #[arg(value_name = "DIR")]
    dir: PathBuf,
    /// Say that you know what may be lost
    #[arg(long = "unsafe")]
    is_unsafe: bool,
    /// Do not ask: the name of the node, as a confirmation
    #[arg(long, value_name = "NAME")]
    yes: Option<String>,
}

/// Carries out one of the commands.
pub(crate) fn run(command: &RaftCommand) -> Result<(), ExitError> {
    match command {
        RaftCommand::Show(args) => show(args),
        RaftCommand::Recover(args) => recover(args),
    }
}

fn show(args: &ShowArgs) -> Result<(), ExitError> {
    let dir = Offline::open(&args.dir).map_err(ToolError::from)?;
    let (name, id, cluster, survey) = disk::show(&dir)?;
    say(&match args.json {
        true => format!("{}\n", json_of(&name, id, cluster, &survey)),
        false => text_of(&name, id, cluster, &survey),
    });
    Ok(())
}

fn json_of(
    name: &NodeName,
    id: NodeId,
    cluster: Option<ClusterId>,
    survey: &NodeSurvey,
) -> serde_json::Value {
    let at = |at: Option<Position>| at.map(|at| json!({"term": at.term.0, "index": at.index.0}));
    let raft = &survey.raft;
    let voter = |id: &NodeId| {
        let name = raft.members.get(id).map(|peer| peer.name.clone());
        json!({"id": id.to_string(), "name": name})
    };
    json!({
        "name": name.as_str(),
        "id": id.to_string(),
        "cluster": cluster.map(|cluster| cluster.to_string()),
        "term": raft.term.map(|term| term.0),
        "voted_for": raft.voted_for.map(|id| id.to_string()),
        "last": at(raft.last),
        "committed": at(raft.committed),
        "snapshot": at(raft.snapshot),
        "purged": at(raft.purged),
        "voters": raft.voters.iter().map(voter).collect::<Vec<_>>(),
    })
}

fn text_of(name: &NodeName, id: NodeId, cluster: Option<ClusterId>, survey: &NodeSurvey) -> String {
    let raft = &survey.raft;
    let none = || "none".to_owned();
    let at = |at: Option<Position>| {
        at.map_or_else(none, |at| format!("term {}, index {}", at.term, at.index))
    };
    let term = raft.term.map_or_else(none, |term| match raft.voted_for {
        Some(candidate) => format!("{term}, voted for {}", name_in(raft, candidate)),
        None => term.to_string(),
    });
    let voters: Vec<String> = raft.voters.iter().map(|&id| name_in(raft, id)).collect();
    let rows = [
        ("node", format!("{name} ({id})")),
        ("cluster", cluster.map_or_else(none, |cluster| cluster.to_string())),
        ("term", term),
        ("last entry", at(raft.last)),
        ("committed", format!("{} at least", at(raft.committed))),
        ("snapshot", at(raft.snapshot)),
        ("voters", if voters.is_empty() { none() } else { voters.join(", ") }),
    ];
    let mut text = String::new();
    for (what, value) in rows {
        writeln!(text, "{what:<12}{value}").expect("a String takes all");
    }
    text
}

fn name_in(raft: &crate::node::rescue::Survey, id: NodeId) -> String {
    let known = raft.members.get(&id).map(|peer| peer.name.clone());
    known.filter(|name| !name.is_empty()).unwrap_or_else(|| id.to_string())
}

fn recover(args: &RecoverArgs) -> Result<(), ExitError> {
    if !args.is_unsafe {
        return Err(ExitError::Usage(
            "a recovery without a quorum can lose writes that were acknowledged; \
             if the other servers are lost for good, say so with --unsafe"
                .to_owned(),
        ));
    }
    let dir = Offline::open(&args.dir).map_err(ToolError::from)?;
    let plan = RecoverPlan::new(&dir)?;
    let (name, id) = (plan.name.clone(), plan.id);
    say(&text_of(&name, id, plan.old_cluster, &plan.survey));
    say(&warning(&plan));
    confirm::name_of_node(Some(&name), args.yes.as_deref())?;
    let cluster = plan.cluster;
    let aside = plan.perform(dir)?;
    say(&format!(
        "\nDone. The log as it was is in {}.\n\
         1. Start this server. It leads cluster {cluster} alone.\n\
         2. On every other server that is left, and on every agent:\n\
         \x20     cronclave log repair DIR --cluster {cluster}\n\
         \x20  and start it. Servers fetch everything from this one and vote again.\n\
         3. New servers only need retry-join with the address of this one.\n",
        aside.display()
    ));
    Ok(())
}

/// What is certain, what is not, and what cannot be known.
fn warning(plan: &RecoverPlan) -> String {
    let (certain, last) = (plan.certain(), plan.last());
    let index = |at: Option<LogIndex>| at.map_or(0, |at| at.0);
    let (sure, end) = (index(certain), index(last));
    let mut text = String::from("\nWhat this server goes on with:\n");
    match certain {
        Some(_) => {
            let _ = writeln!(text, "  entries up to {sure}: certain, a quorum had them");
        }
        None => text.push_str("  it knows of no entry that a quorum had\n"),
    }
    if sure < end {
        let _ = writeln!(
            text,
            "  entries {} to {end}: kept, and not certain: some may never have been\n  \
             acknowledged, and the lost servers may have acknowledged others in their place",
            sure + 1
        );
    }
    let _ = writeln!(
        text,
        "  entries from {} on: LOST, if the others had any. Compare the servers that are left\n  \
         with `cronclave raft show DIR`: the greatest last term wins, then the greatest index",
        end + 1
    );
    if plan.survey.raft.voters.contains(&plan.id) {
        let _ = writeln!(text, "\n{} becomes the only voter of a new cluster,", plan.name);
    } else {
        let _ = writeln!(
            text,
            "\n{} had no vote, so it may lack what the voters had acknowledged.\n\
             It becomes the only voter of a new cluster,",
            plan.name
        );
    }
    let _ = writeln!(
        text,
        "{}. The servers of the old one are refused from then on.\n\
         Jobs, executions and history stay. Do this on ONE server only.",
        plan.cluster
    );
    text
}
