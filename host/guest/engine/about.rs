//! What each instance of a guest has to know of it.

use std::sync::Arc;

use super::budget::Budget;
use super::health::Health;
use super::tenants::{Tenancy, Tenant};
use crate::grants::Grants;
use crate::log::Quota;

/// What one guest may write in a second, all its requests together.
const WORDS_LINES_MAX: usize = 10_000;
const WORDS_BYTES_MAX: usize = 4 << 20;
/// How many of its calls may have their end logged in a second.
const ENDS_LINES_MAX: usize = 1_000;
const ENDS_BYTES_MAX: usize = 1 << 20;

/// What each instance of a guest has to know of it, in one piece: every reference costs an atomic
/// operation per fresh instance.
pub struct About {
    /// Its file's path below the handler folder, without extension.
    pub name: Box<str>,
    /// What it may use.
    pub grants: Arc<Grants>,
    pub health: Health,
    /// The host's memory, of which its instances take theirs.
    pub memory: Budget,
    /// How many instances it has.
    pub instances: Tenancy,
    /// What may be logged in a second: of its words, and of how its calls have ended.
    pub words_quota: Quota,
    pub ends_quota: Quota,
}

impl About {
    pub fn new(name: &str, grants: &Arc<Grants>, memory: &Budget) -> Arc<Self> {
        let (grants, memory) = (grants.clone(), memory.of_guest(grants.owner.id));
        let (words_quota, ends_quota) = quotas();
        let health = Health::default();
        let (name, instances) = (name.into(), Tenancy::default());
        Arc::new(About { name, grants, health, memory, instances, words_quota, ends_quota })
    }

    /// It, as far as its instances take slots.
    pub fn tenant(&self) -> Tenant<'_> {
        Tenant { own: &self.instances, owner: self.memory.owner().map(|owner| &owner.slots) }
    }
}

/// What a guest may have logged: of its words, and of its calls' ends.
fn quotas() -> (Quota, Quota) {
    let words = Quota::new(WORDS_LINES_MAX, WORDS_BYTES_MAX);
    (words, Quota::new(ENDS_LINES_MAX, ENDS_BYTES_MAX))
}
