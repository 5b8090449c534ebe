//! Pages: their bounds, and what the caller's open rows do in them.

use super::*;
use crate::jobs::history::change::{Order, Page, Query, Select, Sort};
use crate::jobs::history::store::{PAGE_OUTPUT_LEN_MAX, PAGE_ROWS_MAX};

fn part(limit: u64, output_len_max: u64) -> Select {
    Select::Part { sort: Sort::Id, order: Order::Descending, skip: 0, limit, output_len_max }
}

fn query(select: Select, open: Vec<Arc<Execution>>) -> Query {
    Query { job: job("a"), open, select }
}

fn claims(page: &Page) -> Vec<u64> {
    page.rows.iter().map(|row| row.id.claim.0).collect()
}

#[test]
fn open_rows_are_listed_among_the_ended_ones() {
    let mut store = empty(WIDE);
    for claim in [1, 3, 5] {
        apply(&mut store, claim, put(row("a", claim, "")));
    }
    let running = |claim| {
        let row = row("a", claim, "so far");
        Arc::new(Execution { outcome: Outcome::Running, finished_at: None, ..row })
    };
    let open = vec![running(2), running(3), running(9)];
    let page = store.page(&query(part(10, 100), open.clone())).unwrap();
    assert_eq!((claims(&page), page.total), (vec![9, 5, 3, 2, 1], 5));
    assert_eq!(page.rows[2].outcome, Outcome::Succeeded, "what has ended is shown as ended");
    let page = store.page(&query(Select::One(id(9)), open)).unwrap();
    assert_eq!((claims(&page), page.total), (vec![9], 5));
}

#[test]
fn a_job_without_rows_has_an_empty_page() {
    let store = empty(WIDE);
    for select in [part(10, 10), Select::One(id(1))] {
        assert_eq!(store.page(&query(select, Vec::new())).unwrap(), Page::default());
    }
}

#[test]
fn an_output_is_cut_to_its_end_in_whole_characters() {
    let mut store = empty(WIDE);
    apply(&mut store, 1, put(row("a", 1, "ab\u{e4}\u{f6}")));
    for (len_max, expected) in [(9, "ab\u{e4}\u{f6}"), (3, "\u{f6}"), (1, ""), (0, "")] {
        let page = store.page(&query(part(1, len_max), Vec::new())).unwrap();
        assert_eq!(&*page.rows[0].output, expected);
        assert_eq!(page.rows[0].output_truncated, len_max < 6);
    }
}

#[test]
fn a_page_is_bounded_in_rows_and_in_bytes() {
    let mut store = empty(WIDE);
    let output = "0123456789".repeat(10_000);
    let count = PAGE_ROWS_MAX + 5;
    for claim in 1..=count {
        apply(&mut store, claim, put(row("a", claim, &output)));
    }
    let page = store.page(&query(part(u64::MAX, u64::MAX), Vec::new())).unwrap();
    assert_eq!((page.rows.len() as u64, page.total), (PAGE_ROWS_MAX, count));
    let bytes: usize = page.rows.iter().map(|row| row.output.len()).sum();
    assert!(bytes <= PAGE_OUTPUT_LEN_MAX, "{bytes}");
    assert!(bytes > PAGE_OUTPUT_LEN_MAX / 2, "{bytes}");
    assert!(page.rows.iter().all(|row| row.output_truncated && row.output.ends_with("789")));
    let page = store.page(&query(Select::One(id(3)), Vec::new())).unwrap();
    assert_eq!(*page.rows[0].output, *output, "a single one has all of it");
}
