//! Plans that once failed, made as small as they go: whatever they found is fixed and stays so.

use cronclave_sim::both;

#[test]
fn what_was_found_once_is_not_found_again() {
    for name in both::names("corpus").expect("it is there") {
        assert_eq!(both::replay("corpus", &name), Ok(()));
    }
}
