//! How fast the disk syncs, with nothing of ours around it.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

/// How long each way of writing is measured.
const LENGTH: Duration = Duration::from_secs(2);
/// The bytes of one write: about one entry of the log, with what comes with it.
const WRITE_LEN: usize = 512;
/// The length of the file that is overwritten.
const FILE_LEN: usize = 16 << 20;

pub(crate) fn measure() {
    let dir = tempfile::tempdir().expect("there is room for a directory");
    let file = File::create(dir.path().join("append")).expect("the directory is ours");
    let append = rate(&file, usize::MAX);
    let file = File::create(dir.path().join("overwrite")).expect("the directory is ours");
    file.write_all_at(&vec![7; FILE_LEN], 0).expect("there is room");
    file.sync_all().expect("the disk works");
    let overwrite = rate(&file, FILE_LEN);
    println!(
        "\nthe disk alone, {WRITE_LEN} bytes and an fdatasync: {append:.0}/s appended to a file, \
         {overwrite:.0}/s written over what is there"
    );
}

/// Writes and syncs one after the other, from the beginning again before `len`; how many a second.
fn rate(file: &File, len: usize) -> f64 {
    let bytes = [9; WRITE_LEN];
    let (start, mut count, mut at) = (Instant::now(), 0_u32, 0);
    while start.elapsed() < LENGTH {
        file.write_all_at(&bytes, at as u64).expect("there is room");
        file.sync_data().expect("the disk works");
        count += 1;
        at += WRITE_LEN;
        if at + WRITE_LEN > len {
            at = 0;
        }
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}
