//! How much memory this process may use: that of the machine, or less if one of its cgroups has a
//! limit.
//!
//! Owns the parsing of Linux's files about it. Only the first function reads files; the others get
//! their text.

use std::path::Path;

use crate::file::kernel_text;

/// Memory in bytes; `None` where the system does not say.
pub(super) fn memory_bytes() -> Option<u64> {
    let machine = kernel_text("/proc/meminfo").ok().and_then(|text| total_bytes(&text));
    let cgroups = kernel_text("/proc/self/cgroup").unwrap_or_default();
    let mounts = kernel_text("/proc/self/mountinfo").unwrap_or_default();
    let limit = limit_bytes(&cgroups, &mounts, |path| kernel_text(path).ok());
    machine.into_iter().chain(limit).min()
}

/// `MemTotal` of `/proc/meminfo`.
fn total_bytes(meminfo: &str) -> Option<u64> {
    let value = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The smallest memory limit of the process's cgroups and of all their ancestors, of version 2 and
/// of version 1 (cgroups(7), proc_pid_mountinfo(5)). If there is no limit, the result is `None`, or
/// a number larger than the memory of any machine.
fn limit_bytes(cgroups: &str, mounts: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let mut least = None;
    for mount in mounts.lines() {
        let Some((controller, files)) = hierarchy(mount) else { continue };
        let mut fields = mount.split(' ').skip(3);
        let (Some(root), Some(point)) = (fields.next(), fields.next()) else { continue };
        let named = cgroups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == controller).then_some(path)
        });
        // The process sees no cgroup outside of the mount's root.
        let below = named.and_then(|path| Path::new(path).strip_prefix(root).ok());
        let below = below.filter(|path| path.iter().all(|part| part != ".."));
        let own = Path::new(point).join(below.unwrap_or(Path::new("")));
        for folder in own.ancestors().take_while(|folder| folder.starts_with(point)) {
            let texts = files.iter().filter_map(|file| read(&folder.join(file)));
            let bytes = texts.filter_map(|text| text.trim().parse().ok()).min();
            least = least.into_iter().chain(bytes).min();
        }
    }
    least
}

/// For a mounted cgroup hierarchy that limits memory: the controller's name in `/proc/self/cgroup`,
/// and the files with the limits. `None` for any other mount.
fn hierarchy(mount: &str) -> Option<(&'static str, &'static [&'static str])> {
    let mut after = mount.split_once(" - ")?.1.split(' ');
    match (after.next()?, after.nth(1)) {
        ("cgroup2", _) => Some(("", &["memory.max", "memory.high"])),
        ("cgroup", Some(options)) if options.split(',').any(|option| option == "memory") => {
            Some(("memory", &["memory.limit_in_bytes"]))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{limit_bytes, total_bytes};

    const MIXED: &str = "\
24 1 0:21 / /proc rw,nosuid - proc proc rw
30 24 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw,nsdelegate
34 24 0:30 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu
35 24 0:31 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory
";
    const UNIFIED: &str = "30 24 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    #[track_caller]
    fn check(cgroups: &str, mounts: &str, files: &[(&str, &str)], expected: Option<u64>) {
        let read = |path: &std::path::Path| {
            let found = files.iter().find(|(name, _)| path == std::path::Path::new(name));
            found.map(|(_, text)| (*text).to_owned())
        };
        assert_eq!(limit_bytes(cgroups, mounts, read), expected);
    }

    #[test]
    fn the_smallest_of_all_ancestors_counts() {
        let files = [
            ("/sys/fs/cgroup/a/b/memory.max", "max\n"),
            ("/sys/fs/cgroup/a/b/memory.high", "300\n"),
            ("/sys/fs/cgroup/a/memory.max", "200\n"),
            ("/sys/fs/cgroup/a/memory.high", "max\n"),
            ("/sys/fs/cgroup/beside/memory.max", "1\n"),
        ];
        check("0::/a/b\n", UNIFIED, &files, Some(200));
        check("0::/a/b\n", UNIFIED, &files[..2], Some(300));
        check("0::/a/b\n", UNIFIED, &files[..1], None);
        check("0::/\n", UNIFIED, &files, None);
    }

    #[test]
    fn version_1_counts_beside_version_2() {
        let files = [
            ("/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "500\n"),
            ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("/sys/fs/cgroup/unified/memory.max", "400\n"),
        ];
        check("4:memory:/pod\n1:cpu:/\n0::/\n", MIXED, &files[..2], Some(500));
        check("4:memory:/pod\n1:cpu:/\n0::/\n", MIXED, &files, Some(400));
        check("1:cpu:/pod\n", MIXED, &files[1..2], Some(9_223_372_036_854_771_712));
    }

    /// A container sees its own cgroup as the root, whatever its name outside.
    #[test]
    fn a_mounted_part_is_read_from_its_root() {
        let mounts = "30 24 0:31 /docker/c1 /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
        let files = [("/sys/fs/cgroup/memory/memory.limit_in_bytes", "700")];
        for path in ["/docker/c1", "/docker/c2", "/", "/../c3"] {
            check(&format!("4:memory:{path}\n"), mounts, &files, Some(700));
        }
    }

    #[test]
    fn what_makes_no_sense_is_no_limit() {
        check("", "", &[], None);
        check("nonsense\n0::\n::\n", "nonsense\n - cgroup2 x\n1 2 3 - cgroup2\n", &[], None);
        check("0::/\n", UNIFIED, &[("/sys/fs/cgroup/memory.max", "-1 many")], None);
    }

    #[test]
    fn the_machine_tells_in_kib() {
        assert_eq!(
            total_bytes("MemFree: 1 kB\nMemTotal:       24684084 kB\n"),
            Some(25_276_502_016)
        );
        assert_eq!(total_bytes("MemTotal: lots\n"), None);
        assert_eq!(total_bytes(""), None);
    }
}
