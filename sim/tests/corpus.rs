//! Plans that once failed, made as small as they go: whatever they found is fixed and stays so.

mod support;

#[test]
fn what_was_found_once_is_not_found_again() {
    for name in support::names("corpus") {
        support::replay("corpus", &name);
    }
}
