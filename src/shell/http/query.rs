//! The query of a call: flags, filters, order and page.
//!
//! An empty value counts as absent, as in Dkron. What cannot be meant is refused (400), never
//! guessed, and no query makes a call fail inside.

use std::cmp::Ordering;
use std::ops::Range;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::node::request::Consistency;

/// The most parameters that a query may have.
const PARAMS_LEN_MAX: usize = 64;

/// The parameters of a query, decoded, in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

/// How an answer is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// On one line.
    Compact,
    /// Indented by four spaces, as Dkron's.
    Pretty,
}

/// Which way a list is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The least first.
    Ascending,
    /// The greatest first.
    Descending,
}

impl Order {
    /// `ordering`, or its reverse.
    pub(super) fn apply(self, ordering: Ordering) -> Ordering {
        match self {
            Self::Ascending => ordering,
            Self::Descending => ordering.reverse(),
        }
    }
}

/// Which part of a list is wanted: `[start, end)`, both counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    start: usize,
    end: Option<usize>,
}

impl Page {
    /// The part of a list of `len` items that the page covers; empty behind its end.
    pub(super) fn range(self, len: usize) -> Range<usize> {
        let end = self.end.unwrap_or(len).min(len);
        self.start.min(end)..end
    }

    /// How many items are left out at the start, and how many at most are wanted after these.
    pub(super) fn window(self, most: usize) -> (usize, usize) {
        let len = self.end.map_or(most, |end| end.saturating_sub(self.start));
        (self.start, len.min(most))
    }
}

impl<S: Sync> FromRequestParts<S> for Params {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| ApiError::BadRequest(error.body_text()))?;
        if pairs.len() > PARAMS_LEN_MAX {
            let text = format!(
                "the query has {} parameters, at most {PARAMS_LEN_MAX} are taken",
                pairs.len()
            );
            return Err(ApiError::BadRequest(text));
        }
        Ok(Self(pairs))
    }
}

impl Params {
    /// The value of the first parameter `key` that has one.
    pub(super) fn value(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(k, v)| k == key && !v.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// Whether the parameter `key` is there and does not say `false` or `0`.
    pub(super) fn flag(&self, key: &str) -> bool {
        self.0.iter().any(|(k, value)| k == key && value != "false" && value != "0")
    }

    /// How the answer is laid out: `pretty`.
    pub(super) fn layout(&self) -> Layout {
        if self.flag("pretty") { Layout::Pretty } else { Layout::Compact }
    }

    /// How fresh the answer must be: `stale`.
    pub(super) fn consistency(&self) -> Consistency {
        if self.flag("stale") { Consistency::Stale } else { Consistency::Linearizable }
    }

    /// Which way to sort: `_order`, else `default`.
    ///
    /// # Errors
    /// If it is neither `ASC` nor `DESC`, in any case.
    pub(super) fn order(&self, default: Order) -> Result<Order, ApiError> {
        let Some(text) = self.value("_order") else { return Ok(default) };
        if text.eq_ignore_ascii_case("asc") {
            Ok(Order::Ascending)
        } else if text.eq_ignore_ascii_case("desc") {
            Ok(Order::Descending)
        } else {
            Err(invalid("_order", text, "ASC or DESC"))
        }
    }

    /// Which part of the list: `_start` (0 without it) and `_end` (the list's without it).
    ///
    /// # Errors
    /// If one is no number from 0, or the end lies before the start.
    pub(super) fn page(&self) -> Result<Page, ApiError> {
        let start = self.number("_start")?.unwrap_or(0);
        let end = self.number("_end")?;
        if let Some(end) = end
            && end < start
        {
            let text = format!("_end {end} is before _start {start}");
            return Err(ApiError::BadRequest(text));
        }
        Ok(Page { start, end })
    }

    /// The number in the parameter `key`. One that is too large to count with is the largest.
    ///
    /// # Errors
    /// If it is no number from 0.
    pub(super) fn number(&self, key: &str) -> Result<Option<usize>, ApiError> {
        let Some(text) = self.value(key) else { return Ok(None) };
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid(key, text, "a whole number from 0"));
        }
        Ok(Some(text.parse().unwrap_or(usize::MAX)))
    }

    /// `true` or `false` in the parameter `key`.
    ///
    /// # Errors
    /// If it is something else.
    pub(super) fn choice(&self, key: &str) -> Result<Option<bool>, ApiError> {
        match self.value(key) {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(text) => Err(invalid(key, text, "true or false")),
        }
    }

    /// The filters `metadata[key]=value`, all of which must hold.
    ///
    /// # Errors
    /// If one is not written like that.
    pub(super) fn metadata(&self) -> Result<Vec<(&str, &str)>, ApiError> {
        let mut filters = Vec::new();
        for (key, value) in self.0.iter().filter(|(key, _)| key.starts_with("metadata")) {
            let name = key.strip_prefix("metadata[").and_then(|rest| rest.strip_suffix(']'));
            let Some(name) = name.filter(|name| !name.is_empty()) else {
                return Err(invalid("filter", key, "metadata[key]=value"));
            };
            filters.push((name, value.as_str()));
        }
        Ok(filters)
    }
}

/// A parameter that cannot be meant: what it is, and what would be right.
pub(super) fn invalid(key: &str, value: &str, right: &str) -> ApiError {
    ApiError::BadRequest(format!("invalid {key} {value:?}: must be {right}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(pairs: &[(&str, &str)]) -> Params {
        Params(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn a_page_never_reaches_outside_the_list() {
        let page = |pairs: &[(&str, &str)]| params(pairs).page().unwrap().range(5);
        assert_eq!(page(&[]), 0..5);
        assert_eq!(page(&[("_start", "1"), ("_end", "3")]), 1..3);
        assert_eq!(page(&[("_start", "4"), ("_end", "900")]), 4..5);
        assert_eq!(page(&[("_start", "7")]), 5..5);
        assert_eq!(page(&[("_end", "0")]), 0..0);
        let huge = "9".repeat(40);
        assert_eq!(page(&[("_start", huge.as_str()), ("_end", huge.as_str())]), 5..5);
    }

    #[test]
    fn a_window_is_never_longer_than_it_may_be() {
        let window = |pairs: &[(&str, &str)]| params(pairs).page().unwrap().window(5);
        assert_eq!(window(&[]), (0, 5));
        assert_eq!(window(&[("_start", "7")]), (7, 5));
        assert_eq!(window(&[("_start", "1"), ("_end", "3")]), (1, 2));
        assert_eq!(window(&[("_start", "1"), ("_end", "9")]), (1, 5));
        assert_eq!(window(&[("_start", "3"), ("_end", "3")]), (3, 0));
    }

    #[test]
    fn a_page_that_cannot_be_meant_is_refused() {
        for pairs in [
            [("_start", "-1"), ("_end", "3")],
            [("_start", "3"), ("_end", "2")],
            [("_start", "0"), ("_end", "x")],
            [("_start", "+1"), ("_end", "3")],
        ] {
            assert!(params(&pairs).page().is_err(), "{pairs:?}");
        }
    }

    #[test]
    fn a_flag_counts_by_its_presence_unless_it_says_no() {
        assert!(params(&[("stale", "")]).flag("stale"));
        assert!(params(&[("stale", "true")]).flag("stale"));
        assert!(!params(&[("stale", "false")]).flag("stale"));
        assert!(!params(&[]).flag("stale"));
    }

    #[test]
    fn metadata_filters_are_read_in_full() {
        let some = params(&[("metadata[team]", "ops"), ("metadata[a]", ""), ("q", "x")]);
        assert_eq!(some.metadata().unwrap(), [("team", "ops"), ("a", "")]);
        assert!(params(&[("metadata[team", "ops")]).metadata().is_err());
        assert!(params(&[("metadata", "ops")]).metadata().is_err());
    }
}
