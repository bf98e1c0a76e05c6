//! Random routes: compares the table with a simple search over all files.

use std::collections::HashSet;

use super::random::Xorshift;
use super::table;

impl Xorshift {
    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn file(&mut self) -> String {
        let mut name = String::from(self.pick(&["", "", "", "@h.org/", "@i.org/"]));
        for at in 0..self.below(4) {
            name += &self.pick(&["a/", "b/", "c/", "[]/"]).replace(']', &format!("p{at}]"));
        }
        name + self.pick(&["a", "b", "c", "index", "[x]", "[...r]"])
    }

    fn path(&mut self) -> String {
        let mut path = String::from(self.pick(&["", "", "h.org", "i.org:1", "j.org"]));
        for _ in 0..self.below(6) {
            path += self.pick(&["/a", "/b", "/c", "/%61", "/d", "/a", "/b", "/"]);
        }
        if !path.contains('/') || self.below(4) == 0 {
            path += "/";
        }
        path
    }
}

/// The rank of `file` for `at`, straight from the rules; the least rank wins. `None` if it does not
/// match. Parses the name by itself.
fn rank(file: &str, at: &str) -> Option<(bool, usize, Vec<bool>, u8)> {
    let (host, path) = at.split_at(at.find('/')?);
    let (for_host, name) = match file.strip_prefix('@').and_then(|file| file.split_once('/')) {
        Some((of, name)) if host.split(':').next() == Some(of) => (true, name),
        Some(_) => return None,
        None => (false, file),
    };
    let path = path[1..].replace("%61", "a");
    let mut asked: Vec<&str> = path.split('/').collect();
    if asked.last() == Some(&"") {
        asked.pop();
    }
    let mut named: Vec<&str> = name.split('/').collect();
    let last = *named.last()?;
    let rest = last.starts_with("[...");
    if rest || last == "index" {
        named.pop();
    }
    if asked.len() < named.len() {
        return None;
    }
    let dynamic = |name: &&str| name.starts_with('[');
    for (name, asked) in named.iter().zip(&asked) {
        if if dynamic(name) { asked.is_empty() } else { name != asked } {
            return None;
        }
    }
    let more = asked.len() > named.len();
    let tail = match (rest, last == "index" || dynamic(&last)) {
        (true, _) if more => 1,
        (false, true) if !more => 0,
        (false, false) => 2,
        _ => return None,
    };
    Some((!for_host, usize::MAX - named.len(), named.iter().map(dynamic).collect(), tail))
}

#[test]
fn the_trie_agrees_with_going_over_all_patterns() {
    let mut random = Xorshift(0x9E37_79B9_7F4A_7C15);
    let mut served = HashSet::new();
    for round in 0..2_000 {
        let mut files: Vec<String> = Vec::new();
        let mut seen = HashSet::new();
        for _ in 0..=random.below(25) {
            let file = random.file();
            // `[id]` and `[id]/index` are one route.
            let route = file.strip_suffix("[x]").map(|folder| format!("{folder}[]/index"));
            let route = route.unwrap_or_else(|| file.clone());
            let route =
                ["p0", "p1", "p2"].iter().fold(route, |route, name| route.replace(name, ""));
            if seen.insert(route) {
                files.push(file);
            }
        }
        let table = table(&files.iter().map(String::as_str).collect::<Vec<_>>());
        for _ in 0..40 {
            let at = random.path();
            let expected = files
                .iter()
                .filter_map(|file| Some((rank(file, &at)?, file.as_str())))
                .min()
                .map(|(_, file)| file);
            let (host, path) = at.split_at(at.find('/').expect("a path has a slash"));
            let found = table.find(Some(host), path).expect("a good path");
            let found = found.map(|found| found.target.as_str());
            assert_eq!(found, expected, "round {round}: {at} in {files:?}");
            let first = table.routes().iter().find(|route| rank(&route.target, &at).is_some());
            let first = first.map(|route| route.target.as_str());
            assert_eq!(first, expected, "round {round}: the printed order, {at} in {files:?}");
            served.extend(found.map(|_| at));
        }
    }
    assert!(served.len() > 1_000, "the paths hit something: {}", served.len());
}
