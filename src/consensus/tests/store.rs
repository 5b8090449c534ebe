//! The log store and the state machine.

use openraft::StorageError;
use openraft::rt::AsyncRuntime;
use openraft::testing::log::{StoreBuilder, Suite};

use super::world::Tally;
use crate::codec::record::Recovered;
use crate::consensus::effect::Effects;
use crate::consensus::machine::{Phase, StateMachine};
use crate::consensus::runtime::Host;
use crate::consensus::snapshots::TaskIds;
use crate::consensus::store::{LogStore, Sync};
use crate::consensus::types::TypeConfig;
use crate::id::NodeId;

/// openraft's suite makes node ids from numbers.
impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine<Tally>> for Builder {
    async fn build(&self) -> Result<((), LogStore, StateMachine<Tally>), StorageError<TypeConfig>> {
        let store = LogStore::recover(&Recovered::default(), 1 << 20, Sync::Immediate).unwrap();
        let machine = StateMachine::new(TaskIds::default(), Effects::default(), None);
        machine.set_phase(Phase::Suite);
        Ok(((), store, machine))
    }
}

#[test]
fn the_store_passes_openrafts_own_suite() {
    Host::new(1).block_on(Suite::test_all(Builder)).unwrap();
}
