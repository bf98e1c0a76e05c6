//! A short run with seeds that stay the same.

use std::time::Instant;

use crate::checks::Coverage;
use crate::feed_one;
use crate::inputs::{Corpus, Input};

#[test]
fn real_files_pass_as_they_are() {
    let (corpus, mut seen) = (Corpus::read(), Coverage::default());
    for (name, bytes) in corpus.binaries() {
        let input = Input { origin: name.clone(), bytes: bytes.clone(), is_text: false };
        let fed = feed_one(&input, &mut seen);
        // A debug build may be slow. The fuzzer itself checks the time.
        let wrong = fed.err().filter(|wrong| !wrong.starts_with("it took"));
        assert_eq!(wrong, None, "{name}");
    }
    assert!(seen.flattened >= 2 && seen.resettable > 5, "{seen:?}");
}

#[test]
fn what_is_promised_holds_for_a_few_hundred_inputs() {
    let (corpus, mut seen) = (Corpus::read(), Coverage::default());
    let start = Instant::now();
    for seed in 0..300 {
        let input = corpus.input(seed);
        let fed = feed_one(&input, &mut seen);
        let wrong = fed.err().filter(|wrong| !wrong.starts_with("it took"));
        assert_eq!(wrong, None, "fuzz --seed {seed}: {}", input.origin);
    }
    println!("{seen:?} in {:?}", start.elapsed());
    assert!(seen.modules > 50 && seen.components > 5, "{seen:?}");
    assert!(seen.rewritten > 10 && seen.resettable > 5 && seen.run > 5, "{seen:?}");
}
