//! The host and its channels.

use openraft::rt::testing::Suite;

use crate::consensus::runtime::Host;

#[test]
fn the_host_passes_openrafts_own_runtime_suite() {
    Suite::<Host>::test_all();
}
