//! What a crash and what rot leave of a log, exhaustively for short ones.

use std::collections::BTreeSet;
use std::ops::Range;

use super::*;

/// A log with a sealed vote and an entry, and a batch of three records that is being written.
fn disk_with_a_batch_under_way(sector_len: usize) -> MemoryDisk {
    let mut disk = MemoryDisk::new(NODE).with_sector_len(sector_len);
    write(&mut disk, &[entry(0), Record::Vote(body("old"))]);
    disk.write(&[entry(1), Record::Vote(body("new")), entry(2)], None).unwrap();
    disk.run_to_sync();
    disk
}

/// What is there, and whether the log is in doubt.
fn seen(recovered: &Recovered) -> (Vec<u64>, Option<Bytes>, bool) {
    (indexes(recovered), recovered.vote.clone(), recovered.doubt.is_some())
}

#[test]
fn every_cut_of_an_unsynced_batch_leaves_a_prefix() {
    let mut all = Vec::new();
    for kept in 0..200 {
        let mut disk = disk_with_a_batch_under_way(4_096);
        // The sector begins with what is synced.
        disk.crash(|_| 0..kept + 150);
        let recovered = disk.recover().unwrap();
        all.push(seen(&recovered));
        write(&mut disk, &[entry(recovered.entries.len() as u64)]);
        let again = disk.recover().unwrap();
        assert_eq!(again.entries.len(), recovered.entries.len() + 1);
        assert_eq!(again.doubt, recovered.doubt);
    }
    all.dedup();
    let wanted = [
        (vec![0], Some(body("old")), false),
        (vec![0], Some(body("old")), true),
        (vec![0, 1], Some(body("old")), true),
        (vec![0, 1], Some(body("new")), true),
        (vec![0, 1, 2], Some(body("new")), true),
        (vec![0, 1, 2], Some(body("new")), false),
    ];
    assert_eq!(all, wanted);
}

#[test]
fn every_choice_of_lost_sectors_leaves_a_prefix() {
    let sectors = {
        let mut count = 0;
        disk_with_a_batch_under_way(16).crash(|_| {
            count += 1;
            0..0
        });
        count
    };
    assert!((8..14).contains(&sectors), "{sectors}");
    let mut all = BTreeSet::new();
    for choice in 0..1_u32 << sectors {
        let mut disk = disk_with_a_batch_under_way(16);
        let mut place = 0;
        disk.crash(|len| {
            place += 1;
            if choice >> (place - 1) & 1 == 1 { 0..len } else { 0..0 }
        });
        let recovered = disk.recover().unwrap();
        assert!(!recovered.entries.is_empty());
        let is_old = recovered.entries.len() == 1;
        assert!(recovered.vote == Some(body("new")) || recovered.vote == Some(body("old")));
        assert!(!is_old || recovered.vote == Some(body("old")));
        all.insert(recovered.entries.len());
        write(&mut disk, &[entry(recovered.entries.len() as u64)]);
        assert_eq!(disk.recover().unwrap().entries.len(), recovered.entries.len() + 1);
    }
    assert_eq!(all, BTreeSet::from([1, 2, 3]));
}

/// Where the last group of a log begins, when each group is one entry.
fn last_group(disk: &MemoryDisk) -> (SegmentNumber, usize) {
    let (segment, end) = disk.end().unwrap();
    let group_len = MARK_LEN + PREFIX_LEN + format::body_len(&entry(0));
    (segment, usize::try_from(end).unwrap() - group_len)
}

#[test]
fn every_flipped_bit_below_the_last_group_is_damage_or_does_no_harm() {
    let mut disk = small_disk();
    for index in 0..12 {
        write(&mut disk, &[entry(index)]);
    }
    let whole = disk.read().unwrap().recovered;
    let segments: Vec<_> = disk.segments().collect();
    assert!(segments.len() > 2);
    let (last, group) = last_group(&disk);
    let mut damaged = 0;
    for (segment, len) in segments {
        for bit in 0..len * 8 {
            let mut copy = disk.clone();
            copy.rot(segment, bit / 8, 1 << (bit % 8));
            let is_unsealed = segment == last && bit / 8 >= group;
            match copy.read() {
                Ok(recovery) if is_unsealed => {
                    assert!(recovery.cut.is_some());
                    assert!(recovery.recovered.entries.len() >= 11);
                    let doubt = recovery.recovered.doubt.unwrap();
                    assert!(doubt.next.0 >= 11);
                }
                Ok(recovery) => panic!("segment {segment} bit {bit}: {:?}", recovery.recovered),
                Err(damage) => {
                    assert!(!is_unsealed, "{damage}");
                    assert_eq!(damage.segment.0.abs_diff(segment.0) / 2, 0);
                    damaged += 1;
                }
            }
        }
    }
    assert!(damaged > 4_000, "{damaged}");
    assert_eq!(disk.read().unwrap().recovered, whole);
}

#[test]
fn a_vote_that_rots_is_found_and_never_forgotten() {
    let mut disk = MemoryDisk::new(NODE);
    write(&mut disk, &[entry(0)]);
    write(&mut disk, &[Record::Vote(body("mine"))]);
    let (segment, end) = disk.end().unwrap();
    let vote = usize::try_from(end).unwrap() - MARK_LEN - PREFIX_LEN - 5;
    for offset in vote..vote + PREFIX_LEN + 5 {
        let mut copy = disk.clone();
        copy.rot(segment, offset, 1);
        assert_eq!(copy.read().unwrap_err().reason, DamageReason::Checksum, "offset {offset}");
    }
}

#[test]
fn doubt_stays_through_restarts_and_segments_until_it_is_settled() {
    let mut disk = small_disk();
    write(&mut disk, &[entry(0)]);
    disk.write(&[entry(1), entry(2)], None).unwrap();
    disk.run_to_sync();
    disk.crash(|len| 0..len - 12);
    let doubt = disk.recover().unwrap().doubt.unwrap();
    assert_eq!((doubt.next, doubt.segment), (LogIndex(2), 1));
    assert!((1..60).contains(&doubt.len), "{doubt:?}");
    for index in 2..20 {
        write(&mut disk, &[entry(index)]);
        assert_eq!(disk.recover().unwrap().doubt, Some(doubt));
    }
    assert!(disk.segments().count() > 3);
    write(&mut disk, &[Record::Settled]);
    assert_eq!(disk.recover().unwrap().doubt, None);
}

#[test]
fn a_second_cut_keeps_what_the_first_may_have_lost() {
    let mut disk = small_disk();
    for _ in 0..2 {
        let next = disk.next_index().unwrap_or_default().0;
        write(&mut disk, &[entry(next)]);
        let next = disk.next_index().unwrap().0;
        disk.write(&[entry(next)], None).unwrap();
        disk.run_to_sync();
        disk.crash(|len| 0..len - 12);
        disk.recover().unwrap();
    }
    let recovered = disk.recover().unwrap();
    assert_eq!(recovered.doubt.unwrap().next, LogIndex(1));
    assert_eq!(indexes(&recovered), [0, 1]);
}

#[test]
fn nothing_half_written_comes_back_in_a_later_life() {
    // A group of one life whose first sector is lost stands where the next life writes.
    let keep_tail = |len: usize| -> Range<usize> { if len == 16 { 0..len } else { 0..0 } };
    for lost in 0..6 {
        let mut disk = MemoryDisk::new(NODE).with_sector_len(16);
        write(&mut disk, &[entry(0)]);
        disk.write(&[entry(1), entry(2), entry(3)], None).unwrap();
        disk.run_to_sync();
        let mut place = 0;
        disk.crash(|len| {
            place += 1;
            if place - 1 == lost { 0..0 } else { keep_tail(len) }
        });
        let found = indexes(&disk.recover().unwrap());
        for life in 0..8 {
            // Each life writes a little, and loses it again.
            disk.write(&[Record::Local(Bytes::from(vec![0; life]))], None).unwrap();
            disk.run_to_sync();
            disk.crash(|_| 0..0);
            assert_eq!(indexes(&disk.recover().unwrap()), found, "lost {lost}, life {life}");
        }
    }
}

fn do_steps(disk: &mut MemoryDisk, count: usize) {
    for _ in 0..count {
        disk.step();
    }
}

/// A log whose next batch begins the segment after `Some` of its steps are done.
fn disk_before_a_roll() -> (MemoryDisk, u64) {
    let mut disk = small_disk().with_sector_len(32);
    write(&mut disk, &[Record::Vote(body("vote")), Record::Local(body("local"))]);
    for index in 0.. {
        let mut next = disk.clone();
        next.write(&[entry(index)], None).unwrap();
        if next.end().unwrap().0 > disk.end().unwrap().0 && index > 6 {
            return (disk, index);
        }
        write(&mut disk, &[entry(index)]);
    }
    unreachable!("a segment is full some day")
}

#[test]
fn a_crash_at_every_step_of_a_roll_leaves_a_log_that_goes_on() {
    let (before, index) = disk_before_a_roll();
    let steps = {
        let mut disk = before.clone();
        disk.write(&[entry(index)], None).unwrap();
        disk.pending()
    };
    assert_eq!(steps, 4);
    let mut count = 0;
    for done in 0..=steps {
        // Which sectors and names are kept: all choices for six of them, then none or all.
        for choice in 0..128_u32 {
            let mut disk = before.clone();
            disk.write(&[entry(index)], None).unwrap();
            do_steps(&mut disk, done);
            let mut place = 0;
            disk.crash(|len| {
                place += 1;
                if choice >> (place - 1).min(6) & 1 == 1 { 0..len } else { 0..0 }
            });
            let recovered = disk.recover().unwrap();
            let least = if done == steps { index + 1 } else { index };
            let found = recovered.entries.len() as u64;
            assert!((least..=index + 1).contains(&found), "{done} {choice:b}: {found}");
            assert_eq!(recovered.vote, Some(body("vote")));
            assert_eq!(recovered.locals, [body("local")]);
            (found..found + 6).for_each(|index| write(&mut disk, &[entry(index)]));
            assert_eq!(disk.recover().unwrap().entries.len() as u64, found + 6);
            count += 1;
        }
    }
    assert_eq!(count, 5 * 128);
}

#[test]
fn a_crash_at_every_step_of_the_repairs_changes_nothing() {
    let (mut before, index) = disk_before_a_roll();
    before.write(&[entry(index)], None).unwrap();
    before.run_to_sync();
    for torn in [0, 5, 17, 31] {
        let mut torn_disk = before.clone();
        torn_disk.crash(|len| if len == 1 { 0..1 } else { 0..torn.min(len) });
        let first = torn_disk.clone().recover().unwrap();
        for done in 0..8 {
            for choice in 0..64_u32 {
                let mut disk = torn_disk.clone();
                disk.recover_unrepaired().unwrap();
                do_steps(&mut disk, done);
                let mut place = 0;
                disk.crash(|len| {
                    place += 1;
                    if choice >> (place - 1).min(5) & 1 == 1 { 0..len } else { 0..0 }
                });
                let again = disk.recover().unwrap();
                assert_eq!(Recovered { doubt: first.doubt, ..again.clone() }, first);
                assert!(first.doubt.is_none() || again.doubt.is_some());
            }
        }
    }
}

#[test]
fn a_file_whose_name_was_lost_may_get_the_same_name_again() {
    let (mut disk, index) = disk_before_a_roll();
    disk.write(&[entry(index)], None).unwrap();
    do_steps(&mut disk, 3);
    let (number, _) = disk.end().unwrap();
    // Its content is synced, and its name is not.
    disk.crash(|_| 0..0);
    disk.recover().unwrap();
    for next in index.. {
        disk.write(&[entry(next)], None).unwrap();
        if disk.end().unwrap().0 == number {
            break;
        }
        disk.finish();
    }
    let next = disk.next_index().unwrap().0 - 1;
    do_steps(&mut disk, 1);
    // The name is there, and nothing of the new content.
    disk.crash(|len| if len == 1 { 0..1 } else { 0..0 });
    assert_eq!(disk.file(number).unwrap()[24..32], number.0.to_le_bytes());
    let recovered = disk.recover().unwrap();
    assert_eq!((recovered.entries.len() as u64, recovered.doubt), (next, None));
    write(&mut disk, &[entry(next)]);
    assert_eq!(disk.recover().unwrap().entries.len() as u64, next + 1);
}

#[test]
fn a_recycled_segment_shows_nothing_of_what_it_was() {
    let mut disk = small_disk();
    for index in 0..200 {
        write(&mut disk, &[entry(index)]);
        if index % 7 == 6 {
            disk.write(&[purge(index - 3)], Some(&snapshot(index - 3))).unwrap();
            disk.finish();
        }
        let found = indexes(&disk.recover().unwrap());
        assert_eq!(found.last(), Some(&index));
    }
    assert!(disk.segments().count() < 8);
    assert!(disk.end().unwrap().0 > SegmentNumber(40));
}

#[test]
fn a_last_segment_that_was_never_begun_is_as_if_it_were_not_there() {
    let segments = files_of(&mut writer(100), &entries(4));
    let (&last, _) = segments.last_key_value().unwrap();
    let earlier = segments[&SegmentNumber(1)].clone();
    for blank in [Bytes::new(), Bytes::from(vec![0; 4_096]), earlier] {
        let mut with_blank = segments.clone();
        with_blank.insert(last.next(), blank);
        let recovery = recover_all(&with_blank).unwrap();
        assert_eq!(recovery.cut, None);
        assert_eq!(indexes(&recovery.recovered), [0, 1, 2, 3]);
        assert!(
            matches!(recovery.repairs[0], Step::Create { segment, .. } if segment == last.next())
        );
    }
    let mut with_torn = segments;
    with_torn.insert(last.next(), Bytes::from_static(b"CRON"));
    let cut = recover_all(&with_torn).unwrap().cut;
    assert_eq!(cut, Some(Cut { segment: last.next(), offset: 0, len: 4 }));
}

#[test]
fn a_mark_behind_the_end_that_knows_more_than_is_there_is_damage() {
    // The group in the middle went back to what was there before, and its end is whole.
    let mut disk = MemoryDisk::new(NODE);
    write(&mut disk, &[entry(0)]);
    let (segment, at) = disk.end().unwrap();
    let at = usize::try_from(at).unwrap();
    let before = disk.file(segment).unwrap().to_vec();
    write(&mut disk, &[entry(1)]);
    write(&mut disk, &[entry(2)]);
    for (offset, old) in before.iter().enumerate().skip(at) {
        let mask = disk.file(segment).unwrap()[offset] ^ old;
        disk.rot(segment, offset, mask);
    }
    let damage = disk.read().unwrap_err();
    assert_eq!((damage.offset, damage.reason), (at as u64, DamageReason::Checksum));
}
