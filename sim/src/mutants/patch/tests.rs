//! Tests of the heads of patches, and of applying them.

use super::*;

const GOOD: &str = "\
# name: one-for-two
# row: M99
# target: cronclave
# about: it says 1
# killed-by: log matching, no halt
# seeds: 3..=9
--- a/src/number.rs
+++ b/src/number.rs
@@ -1,2 +1,2 @@
 // A number.
-2
+1
";

fn without(key: &str) -> String {
    let is_other = |line: &&str| !line.starts_with(&format!("# {key}:"));
    GOOD.lines().filter(is_other).map(|line| format!("{line}\n")).collect()
}

fn error(text: &str) -> PatchError {
    Patch::parse(text).unwrap_err()
}

#[test]
fn a_head_says_what_the_patch_is() {
    let patch = Patch::parse(GOOD).unwrap();
    assert_eq!((patch.name.as_str(), patch.row.as_str()), ("one-for-two", "M99"));
    assert_eq!((patch.target, patch.seeds), (Target::Cronclave, 3..=9));
    assert_eq!(patch.killers, ["log matching", "no halt"]);
    assert_eq!((patch.real, patch.plan), (None, None));
    assert!(patch.diff.starts_with("--- a/src/number.rs\n"));
    assert!(patch.diff.ends_with("+1\n"));
}

#[test]
fn what_a_head_must_have_is_missed_by_name() {
    for key in ["name", "target", "about", "killed-by", "seeds"] {
        assert_eq!(error(&without(key)), PatchError::Missing(key));
    }
    assert!(Patch::parse(&without("row")).is_ok());
}

#[test]
fn a_head_with_anything_else_is_refused() {
    let with = |from: &str, to: &str| error(&GOOD.replace(from, to));
    assert_eq!(with("# row: M99", "#row"), PatchError::BadLine("#row".to_owned()));
    assert_eq!(with("# row:", "# raw:"), PatchError::UnknownKey("raw".to_owned()));
    assert_eq!(with("# row:", "# name:"), PatchError::Repeated("name".to_owned()));
    assert_eq!(with("cronclave", "madsim"), PatchError::BadValue("target", "madsim".to_owned()));
    assert_eq!(with("3..=9", "9..=3"), PatchError::BadValue("seeds", "9..=3".to_owned()));
    assert_eq!(with("one-", "../one-"), PatchError::BadValue("name", "../one-for-two".to_owned()));
    assert_eq!(with("@@ ", "@ "), PatchError::NoDiff);
}

#[test]
fn a_patch_changes_the_sources_that_it_was_made_against_and_no_others() {
    let dir = std::env::temp_dir().join(format!("cronclave-patch-{}", std::process::id()));
    let file = dir.join("src/number.rs");
    std::fs::create_dir_all(dir.join("src")).unwrap();
    std::fs::write(&file, "// A number.\n2\n").unwrap();
    let patch = Patch::parse(GOOD).unwrap();
    assert_eq!(patch.apply(&dir), Ok(()));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "// A number.\n1\n");
    let again = patch.apply(&dir);
    assert!(matches!(again, Err(PatchError::DoesNotApply(_))), "{again:?}");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn every_patch_of_the_suite_has_a_head() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants");
    let patches = load_all(&dir).unwrap();
    assert!(patches.len() >= 15, "{}", patches.len());
    for patch in patches {
        let plan = patch.plan.map(|plan| dir.join(plan));
        assert!(plan.is_none_or(|plan| plan.exists()), "{} has its plan", patch.name);
    }
}
