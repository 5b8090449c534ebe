//! The whole history out of one store and into another.

use super::*;
use crate::jobs::history::store::BLOCK_LEN_MAX;

/// A store that has been through replaced, dropped and forgotten rows.
fn worn(upto: u64) -> Store {
    let mut store = empty(Limits { rows_per_job: 40, ..WIDE });
    for claim in 1..upto {
        let name = ["a", "b", "gone"][claim as usize % 3];
        let len = if claim % 10 == 0 { 200_000 } else { claim as usize };
        apply(&mut store, claim, put(row(name, claim, &"x".repeat(len))));
    }
    apply(&mut store, upto, Change::Forget(job("gone")));
    store
}

#[test]
fn a_history_arrives_as_it_was_sent() {
    let source = worn(150);
    let sent = blocks(&source);
    assert!(sent.len() > 6, "{} blocks", sent.len());
    assert!(sent.iter().all(|block| block.len() <= BLOCK_LEN_MAX));
    let backend = MemoryBackend::new();
    let mut target = open(&backend, WIDE);
    apply(&mut target, 3, put(row("own", 3, "")));
    replace(&mut target, 150, &sent).unwrap();
    assert_eq!(all(&target), all(&source));
    assert_eq!((target.rows(), target.bytes()), (source.rows(), source.bytes()));
    assert_eq!(digest(&target), digest(&source));
    assert_eq!(blocks(&target), sent, "equal rows give equal blocks");
    let found = open(&backend.crash(|_| 0), WIDE);
    assert_eq!(found.durable(), Some(LogIndex(150)), "it is durable");
    assert_eq!(digest(&found), digest(&source));
}

#[test]
fn a_replaced_history_goes_on_as_the_one_that_was_sent() {
    let limits = Limits { rows_per_job: 40, ..WIDE };
    let mut source = worn(150);
    let mut target = empty(limits);
    replace(&mut target, 150, &blocks(&source)).unwrap();
    for store in [&mut source, &mut target] {
        for claim in 151..250 {
            apply(store, claim, put(row(["a", "new"][claim as usize % 2], claim, "")));
        }
    }
    assert_eq!(digest(&target), digest(&source));
}

#[test]
fn an_empty_history_is_sent_as_well() {
    let mut target = worn(20);
    let mut source = empty(WIDE);
    source.apply(LogIndex(30), &[]).unwrap();
    replace(&mut target, 30, &blocks(&source)).unwrap();
    assert_eq!((target.rows(), target.bytes(), target.upto()), (0, 0, Some(LogIndex(30))));
}

#[test]
fn a_view_does_not_see_what_is_applied_after_it() {
    let mut store = worn(30);
    let before = digest(&store);
    let view = store.view().unwrap();
    apply(&mut store, 31, Change::Forget(job("a")));
    store.commit().unwrap();
    assert_eq!((view.upto(), view.digest().unwrap()), (Some(LogIndex(30)), before));
    assert_ne!(digest(&store), before);
}

/// What is done to the blocks of a history before they arrive.
type Damage = fn(&mut Vec<Bytes>);

#[test]
fn blocks_that_are_no_whole_history_change_nothing() {
    let sent = blocks(&worn(60));
    let damages: [(&str, Damage); 8] = [
        ("none", Vec::clear),
        ("without an end", |blocks| drop(blocks.pop())),
        ("without a head", |blocks| drop(blocks.remove(0))),
        ("without rows in the middle", |blocks| drop(blocks.remove(2))),
        ("twice the same", |blocks| blocks.insert(2, blocks[2].clone())),
        ("in another order", |blocks| blocks.swap(1, 2)),
        ("with more after the end", |blocks| blocks.push(blocks[0].clone())),
        ("too long", |blocks| blocks[1] = Bytes::from(vec![0; BLOCK_LEN_MAX + 1])),
    ];
    for (what, damage) in damages {
        let mut blocks = sent.clone();
        damage(&mut blocks);
        refused(what, 60, &blocks);
    }
    refused("of another entry", 61, &sent);
}

#[test]
fn a_flipped_bit_of_a_block_changes_nothing() {
    let sent = blocks(&worn(12));
    for (at, block) in sent.iter().enumerate() {
        for byte in (0..block.len()).step_by(1 + block.len() / 40) {
            let mut damaged = sent.clone();
            let mut bytes = block.to_vec();
            bytes[byte] ^= 4;
            damaged[at] = Bytes::from(bytes);
            refused(&format!("byte {byte} of block {at}"), 12, &damaged);
        }
    }
}

fn refused(what: &str, upto: u64, blocks: &[Bytes]) {
    let mut target = empty(WIDE);
    apply(&mut target, 3, put(row("own", 3, "text")));
    let before = digest(&target);
    let error = replace(&mut target, upto, blocks).unwrap_err();
    assert!(matches!(error, HistoryError::Block(_)), "{what}: {error}");
    assert_eq!((digest(&target), target.upto()), (before, Some(LogIndex(3))), "{what}");
    apply(&mut target, 4, put(row("own", 4, "text")));
    assert_eq!(target.rows(), 2, "{what}");
}

#[test]
fn blocks_of_a_newer_version_are_named() {
    let mut sent = blocks(&worn(12));
    let mut bytes = sent[1].to_vec();
    let inner = bytes.len() - 4;
    bytes[0] = 9;
    let crc = crc32c::crc32c(&bytes[..inner]);
    bytes[inner..].copy_from_slice(&crc.to_le_bytes());
    sent[1] = Bytes::from(bytes);
    let error = replace(&mut empty(WIDE), 12, &sent).unwrap_err();
    assert_eq!(error.to_string(), "the history has format 9, this version knows only 1");
}

#[test]
fn blocks_that_cannot_be_read_leave_the_history_alone() {
    let mut target = worn(20);
    let before = digest(&target);
    let first = blocks(&worn(60)).remove(0);
    let broken = [Ok(first), Err(std::io::Error::other("the disk is gone"))];
    let error = target.replace(LogIndex(60), broken).unwrap_err();
    assert!(matches!(error, HistoryError::Io(_)), "{error}");
    assert_eq!(digest(&target), before);
}
