//! The native twins of the bundled handlers, as a source: routes below `/native/`.

use anyhow::Result;

use super::native::Twin;
use crate::registry::route::Pattern;
use crate::source::{HandlerSet, Source, Wake};

/// The source of all native twins.
pub struct Twins;

impl Source for Twins {
    fn begin(&mut self, _wake: Wake) -> Result<HandlerSet> {
        let route = |twin: Twin| (Pattern::prefix(&["native", twin.name()]), twin.number());
        Ok(HandlerSet { native: Twin::ALL.map(route).into(), ..HandlerSet::default() })
    }
}
