//! Makes a few random changes to bytes or to a text.

use crate::random::Random;

/// Bytes with a meaning in the format, which are likely to trigger a mistake.
const BYTES: [u8; 10] = [0, 1, 0x0b, 0x40, 0x60, 0x7f, 0x80, 0xfc, 0xfd, 0xff];
/// Large and redundant counts in LEB128.
const COUNTS: [&[u8]; 5] = [
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0x07],
    &[0x80, 0x80, 0x04],
    &[0xc0, 0x84, 0x3d],
    &[0x80, 0x80, 0x80, 0x80, 0x00],
];

/// Changes some bytes. Parts may be replaced by parts of `other`.
pub fn bytes(mut bytes: Vec<u8>, other: &[u8], random: &mut Random) -> Vec<u8> {
    let times = if random.one_in(2) { 1 } else { 1 + random.below(8) };
    for _ in 0..times {
        change(&mut bytes, other, random);
    }
    bytes
}

fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(bytes.len());
    let len = random.below(1 + (bytes.len() - at).min(64));
    match random.below(10) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 | 3 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = byte.wrapping_add(1).wrapping_sub(2 * random.below(2) as u8);
            }
        }
        4 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *random.pick(&BYTES);
            }
        }
        5 => drop(bytes.splice(at..(at + 1).min(bytes.len()), random.pick(&COUNTS).to_vec())),
        6 => drop(bytes.drain(at..at + len)),
        7 => {
            let part = bytes[at..at + len].to_vec();
            let to = random.below(bytes.len());
            bytes.splice(to..to, part);
        }
        8 => {
            let from = random.below(other.len());
            let part = other[from..(from + random.below(64)).min(other.len())].to_vec();
            bytes.splice(at..at + len, part);
        }
        _ if random.one_in(4) => bytes.truncate(at),
        _ => sections(bytes, random),
    }
}

/// Removes, repeats or swaps sections.
fn sections(bytes: &mut Vec<u8>, random: &mut Random) {
    let Some(head) = bytes.get(..8) else { return };
    let (mut all, head) = (Vec::new(), head.to_vec());
    let mut reader = wasmparser::BinaryReader::new(&bytes[8..], 0);
    while !reader.eof() {
        let start = reader.current_position();
        let len = reader.read_u8().and_then(|_| reader.read_var_u32());
        if len.and_then(|len| reader.read_bytes(len as usize)).is_err() {
            break;
        }
        all.push(bytes[8 + start..8 + reader.current_position()].to_vec());
    }
    if all.is_empty() {
        return;
    }
    let (one, two) = (random.below(all.len()), random.below(all.len()));
    match random.below(3) {
        0 => drop(all.remove(one)),
        1 => all.insert(two, all[one].clone()),
        _ => all.swap(one, two),
    }
    *bytes = [head, all.concat()].concat();
}

/// Changes some lines and words of a WebAssembly text, so that it is likely to stay valid.
pub fn text(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let times = if random.one_in(2) { 1 } else { 1 + random.below(4) };
    for _ in 0..times {
        let (at, to) = (random.below(lines.len()), random.below(lines.len()));
        match random.below(6) {
            0 => drop(lines.remove(at)),
            1 => lines.insert(to, lines[at].clone()),
            2 => lines.swap(at, to),
            _ => lines[at] = words(&lines[at], random),
        }
        if lines.is_empty() {
            break;
        }
    }
    lines.join("\n")
}

/// Changes one word of a line.
fn words(line: &str, random: &mut Random) -> String {
    const OTHER: [&str; 16] = [
        "0",
        "1",
        "2",
        "65536",
        "4294967295",
        "i32",
        "i64",
        "funcref",
        "(param i32)",
        "$main",
        "table.set",
        "elem.drop 0",
        "data.drop 0",
        "memory.grow",
        "call 0",
        "\"handle\"",
    ];
    let mut words: Vec<&str> = line.split(' ').collect();
    let (at, to) = (random.below(words.len()), random.below(words.len()));
    match random.below(4) {
        0 => words.swap(at, to),
        1 => drop(words.remove(at)),
        2 => words.insert(to, words[at]),
        _ => words[at] = *random.pick(&OTHER[..]),
    }
    words.join(" ")
}
