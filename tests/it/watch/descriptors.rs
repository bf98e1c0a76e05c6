//! A host that has no descriptors left for a while still loads the files that it could not read
//! then.

use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::{footprint, look, put, remove, wait_footprint, wait_for};
use crate::host::Host;
use crate::wat;

/// Lets the host have this many descriptors. Returns its limit before.
#[track_caller]
fn limit(host: &Host, descriptors: u64) -> u64 {
    // The host has inherited it from this process.
    let maximum = getrlimit(Resource::Nofile).maximum;
    let limit = Rlimit { current: Some(descriptors), maximum };
    let before = prlimit(Some(host.pid()), Resource::Nofile, limit).expect("a child's limit");
    before.current.expect("there is a limit")
}

#[test]
fn a_version_that_could_not_be_read_for_want_of_descriptors_is_served_in_the_end() {
    let host = Host::with("page.wat", wat::says("old")).file("gone.wat", wat::says("gone")).start();
    host.settled();
    // On an open connection: without descriptors there is no other.
    let mut connection = host.connect();
    assert_eq!(connection.get("/page").text(), "old");
    let before = footprint(&host);
    let usual = limit(&host, 3);
    put(&host, "page.wat", wat::says("new"));
    put(&host, "fresh.wat", wat::says("fresh"));
    remove(&host, "gone.wat");
    // The host does not even try the file, and the log does not blame it.
    host.wait_log(|line| line.level() == "WARN" && line.has(&["no handler can be loaded now"]));
    host.wait_log(|line| line.level() == "ERROR" && line.has(&["the handlers stay as they were"]));
    assert_eq!(connection.get("/page").text(), "old");
    assert_eq!(connection.get("/gone").text(), "gone");
    limit(&host, usual);
    wait_for(&host, "/fresh", "fresh");
    wait_for(&host, "/gone", "404");
    wait_for(&host, "/page", "new");
    look(&host);
    let status = host.at_rest();
    assert_eq!((status.handlers, status.failed), (2, 0), "{status:?}");
    wait_footprint(&host, before);
}
