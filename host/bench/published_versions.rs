//! The versions of a file that replace each other during a load, and which of them may answer.
//!
//! Once a version has answered, no request that is sent later may be answered by an older one.
//! Shared by the thread that replaces the file and the threads that read answers.

use std::sync::atomic::{AtomicU64, Ordering};

/// Versions that are published in a circle. The n-th publication has the number n, from 0.
#[derive(Debug)]
pub struct PublishedVersions {
    /// The hash of each version's answer, in the order of the versions.
    hashes: Vec<u64>,
    /// The number of the last publication that has begun.
    published: AtomicU64,
    /// The number of the newest publication that has answered.
    seen: AtomicU64,
}

impl PublishedVersions {
    /// The first version is published and seen. `hashes` has the [`body_hash`] of each version's
    /// answer, and is not empty.
    ///
    /// [`body_hash`]: super::response::body_hash
    pub fn new(hashes: Vec<u64>) -> Self {
        Self { hashes, published: AtomicU64::new(0), seen: AtomicU64::new(0) }
    }

    /// Call it before the file is replaced for this publication.
    pub fn publish(&self, number: u64) {
        self.published.store(number, Ordering::Release);
    }

    /// The newest publication that has answered. Answers to requests that are sent after this call
    /// may not be older.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Whether the version of this publication answers with a body that has this hash.
    pub fn is_answer_of(&self, number: u64, hash: u64) -> bool {
        self.hashes[(number % self.hashes.len() as u64) as usize] == hash
    }

    /// Takes an answer with this hash. `since` is what [`seen`](Self::seen) was when its request
    /// was sent. Returns what is wrong with the answer, if anything, in words that follow the
    /// request.
    pub fn mistake(&self, hash: u64, since: u64) -> Option<&'static str> {
        let count = self.hashes.len() as u64;
        let newest = self.published.load(Ordering::Acquire).min(since + count - 1);
        // The oldest that it can be. If versions came and went unseen, it may have been a later
        // publication of the same version.
        let is_it = |number: &u64| self.is_answer_of(*number, hash);
        let Some(number) = (since..=newest).find(is_it) else {
            let is_known = self.hashes.contains(&hash);
            return Some(if is_known { BACK } else { UNKNOWN });
        };
        if number > self.seen() {
            self.seen.fetch_max(number, Ordering::AcqRel);
        }
        None
    }
}

const BACK: &str = "was answered by an older version, after a newer one had answered";
const UNKNOWN: &str = "was answered by none of the versions";
