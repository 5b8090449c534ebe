//! The lattice as a whole: what is in it, and what is run with every test.

use std::collections::BTreeSet;

use super::*;
use crate::plan::{Action, Expect};

#[test]
fn every_experiment_has_a_name_of_its_own_and_a_plan_that_is_read_back() {
    let all = experiments(Slice::Whole);
    let mut names = BTreeSet::new();
    for Experiment { id, size, kind, plan, .. } in &all {
        assert!(names.insert(id.clone()), "{id} is there twice");
        assert!(id.starts_with(&format!("{}/n{size}/", kind.name())), "{id}");
        let text = plan.to_string();
        assert_eq!(text.parse::<Plan>().as_ref(), Ok(plan), "{id}: {text}");
    }
    assert!(all.len() > 4_000, "{} experiments", all.len());
}

#[test]
fn every_experiment_marks_the_leader_and_expects_something_of_places() {
    for Experiment { id, plan, .. } in experiments(Slice::Whole) {
        let marks = plan.steps.iter().filter(|step| step.action == Action::Mark).count();
        assert_eq!(marks, 1, "{id}");
        let expects = |step: &&crate::plan::Step| {
            let is_after =
                |target: &crate::plan::Target| matches!(target, crate::plan::Target::After(_));
            matches!(step.action, Action::Expect(_)) && step.action.targets().iter().any(is_after)
        };
        assert!(
            plan.steps.iter().any(|step| expects(&step)),
            "{id}: the leader's place is not asserted"
        );
    }
}

#[test]
fn beyond_what_may_be_lost_something_stands_still_or_all_had_crashed() {
    for Experiment { id, beyond, plan, kind, .. } in experiments(Slice::Whole) {
        let stands = plan.steps.iter().any(|step| {
            let Action::Expect(expect) = &step.action else { return false };
            matches!(expect, Expect::Still(_) | Expect::ReadOnly(_) | Expect::Either(_))
        });
        assert!(!beyond || stands || kind == Kind::C2All, "{id}");
    }
}

#[test]
fn every_kind_and_every_size_is_run_with_every_test() {
    let chosen = experiments(Slice::Test);
    let kinds: BTreeSet<Kind> = chosen.iter().map(|experiment| experiment.kind).collect();
    assert_eq!(kinds.len(), Kind::ALL.len());
    let sizes: BTreeSet<usize> = chosen.iter().map(|experiment| experiment.size).collect();
    assert_eq!(sizes.len(), SIZE_MAX);
    assert!(chosen.len() < 40, "{} are too many", chosen.len());
}
