//! Knows which keys of a case each measure reads, and refuses all others.
//!
//! A key without effect looks like one that works. Keys of the file's own tables are defaults for
//! all cases, so a case need not read each of them.

use std::ops::Range;

use toml::Spanned;

use super::format::{At, BesideTable, CaseTable, LoadTable, RequestTable, Scalar, SideTable};
use super::text::Reader;

const READ_BY_IDLE: &str =
    "method path headers body body_file body_bytes status connections timeout pid";
const READ_BY_DROP: &str = "method path headers body body_file body_bytes status timeout";
const READ_BY_CURVE: &str = "method path paths paths_file paths_folder headers body body_file \
     body_bytes status connections timeout cpus spin nice duration";
const READ_BY_OVERLOAD: &str = "method path paths paths_file paths_folder spread headers body \
     body_file body_bytes status connections threads pipeline arrivals timeout cpus spin nice \
     duration";

/// The name of a key and its place in the file.
type Key = (&'static str, Range<usize>);

/// Notes a mistake for each key of the case and of its sides that its measure does not read.
/// `measure` is the word for it.
pub fn check(case: &CaseTable, measure: &str, reader: &mut Reader<'_>) {
    let Some(read) = read_by(measure) else { return };
    let mut keys = request_keys(&case.request);
    keys.extend(load_keys(&case.load));
    keys.extend(beside_keys(&case.beside));
    keys.extend(case.duration.iter().map(|it| ("duration", it.span())));
    for side in case.tables.iter().map(Spanned::get_ref) {
        keys.extend(side_keys(side));
    }
    for (key, at) in keys {
        if !read.split(' ').any(|it| it == key) {
            let reason = format!("{key}: measure = \"{measure}\" does not use it; leave it out");
            reader.mistake(at, reason);
        }
    }
}

/// The keys that a measure reads. `None` for a load, which reads all.
fn read_by(measure: &str) -> Option<&'static str> {
    match measure {
        "idle" => Some(READ_BY_IDLE),
        "start" => Some(""),
        "drop" => Some(READ_BY_DROP),
        "curve" => Some(READ_BY_CURVE),
        "overload" => Some(READ_BY_OVERLOAD),
        _ => None,
    }
}

fn side_keys(side: &SideTable) -> Vec<Key> {
    let mut keys = request_keys(&side.request);
    keys.extend(load_keys(&side.load));
    keys.extend(beside_keys(&side.beside));
    keys.extend(side.pid.iter().map(|it| ("pid", it.span())));
    keys.extend(side.swaps.iter().map(|it| ("swaps", it.span())));
    keys.extend(side.along.iter().map(|it| ("along", it.span())));
    keys
}

fn beside_keys(beside: &[Spanned<BesideTable>]) -> Option<Key> {
    beside.first().map(|it| ("beside", it.span()))
}

/// Those of the keys that the file has.
fn written<const N: usize>(scalars: [(&'static str, &Option<At<Scalar>>); N]) -> Vec<Key> {
    let written = scalars.into_iter().filter_map(|(key, it)| Some((key, it.as_ref()?.span())));
    written.collect()
}

fn request_keys(table: &RequestTable) -> Vec<Key> {
    let scalars = [
        ("method", &table.method),
        ("path", &table.path),
        ("paths_file", &table.paths_file),
        ("body", &table.body),
        ("body_file", &table.body_file),
        ("body_bytes", &table.body_bytes),
        ("status", &table.status),
        ("bodies", &table.bodies),
    ];
    let mut keys = written(scalars);
    keys.extend(table.paths.iter().map(|it| ("paths", it.span())));
    keys.extend(table.paths_folder.iter().map(|it| ("paths_folder", it.span())));
    keys.extend(table.spread.iter().map(|it| ("spread", it.span())));
    keys.extend(table.headers.values().map(|it| ("headers", it.span())));
    keys
}

fn load_keys(table: &LoadTable) -> Vec<Key> {
    let scalars = [
        ("connections", &table.connections),
        ("threads", &table.threads),
        ("pipeline", &table.pipeline),
        ("rate", &table.rate),
        ("arrivals", &table.arrivals),
        ("timeout", &table.timeout),
        ("nice", &table.nice),
    ];
    let mut keys = written(scalars);
    keys.extend(table.cpus.iter().map(|it| ("cpus", it.span())));
    keys.extend(table.spin.iter().map(|it| ("spin", it.span())));
    keys
}
