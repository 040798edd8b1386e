//! Figures that people read.

use std::time::Duration;

use proptest::prelude::*;
use switchover::domain::rollout::{Histogram, ProbeFigures, Requests, Traffic, figures::thousands};

#[test]
fn words_of_the_prober() {
    let figures = ProbeFigures { sent: 12_430, failed: 0, ..ProbeFigures::default() };
    assert_eq!(figures.words(), "0 of 12,430 probes failed");
    for (n, words) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
        assert_eq!(thousands(n), words);
    }
}

#[test]
fn counters_that_start_again_are_not_negative() {
    let base = Requests { total: 100, server_errors: 5, cut: 1, in_flight: 0 };
    let more = Requests { total: 150, server_errors: 6, cut: 1, in_flight: 0 };
    assert_eq!(Traffic::since(more, base), Traffic { total: 50, server_errors: 1, cut: 0 });
    let again = Requests { total: 10, server_errors: 1, cut: 0, in_flight: 0 };
    assert_eq!(Traffic::since(again, base), Traffic { total: 10, server_errors: 1, cut: 0 });
}

proptest! {
    #[test]
    fn quantiles_are_right_within_an_eighth(mut all in prop::collection::vec(1u64..10_000_000, 1..300), share in 0.0f64..1.0) {
        let mut histogram = Histogram::default();
        all.iter().for_each(|us| histogram.add(Duration::from_micros(*us)));
        all.sort_unstable();
        let rank = ((all.len() as f64 * share).ceil() as usize).max(1);
        let exact = all[rank - 1] as f64;
        let found = histogram.quantile(share).unwrap().as_micros() as f64;
        prop_assert!(found >= exact && found <= (exact * 1.13).max(exact + 1.0), "{found} for {exact}");
        // As it comes back from the store, and added to another.
        let stored: Histogram = serde_json::from_str(&serde_json::to_string(&histogram).unwrap()).unwrap();
        prop_assert_eq!(&stored, &histogram);
        let mut sum = stored;
        sum.merge(&histogram);
        prop_assert_eq!(sum.count(), 2 * all.len() as u64);
        prop_assert_eq!(sum.quantile(share), histogram.quantile(share));
    }
}
