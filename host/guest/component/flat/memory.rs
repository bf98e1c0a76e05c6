//! Lifting: reading the values that a guest passes in its memory.

use crate::guest::component::limits::HOSTCALL_FUEL;
use crate::guest::engine::fault::misuse;

pub use wasmtime::Result;

/// A range of the guest's memory, of bounded length.
pub fn range(memory: &[u8], ptr: u32, len: u32) -> Result<&[u8]> {
    if len as usize > HOSTCALL_FUEL {
        return Err(misuse(format!("{len} bytes are too many for one call")));
    }
    memory
        .get(ptr as usize..)
        .and_then(|tail| tail.get(..len as usize))
        .ok_or_else(|| misuse(format!("pointer {ptr} with length {len} is outside of its memory")))
}

pub fn list(memory: &[u8], ptr: u32, len: u32) -> Result<Vec<u8>> {
    range(memory, ptr, len).map(<[u8]>::to_vec)
}

pub fn string(memory: &[u8], ptr: u32, len: u32) -> Result<String> {
    let bytes = list(memory, ptr, len)?;
    String::from_utf8(bytes).map_err(|_| misuse("a string is not UTF-8"))
}

/// A list of pairs of a pointer and a length.
pub fn pairs(memory: &[u8], ptr: u32, len: u32) -> Result<impl Iterator<Item = (u32, u32)>> {
    aligned(ptr, 4)?;
    let bytes = range(memory, ptr, len.saturating_mul(8))?;
    let word = |bytes: &[u8]| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    Ok(bytes.chunks_exact(8).map(move |pair| (word(pair), word(&pair[4..]))))
}

/// The lists that a list of pointers and lengths describes, with a bound on their total length.
pub fn lists(memory: &[u8], ptr: u32, len: u32) -> Result<Vec<Vec<u8>>> {
    let mut bytes_left = HOSTCALL_FUEL;
    let lists = pairs(memory, ptr, len)?.map(|(ptr, len)| {
        let left = bytes_left.checked_sub(len as usize);
        bytes_left = left.ok_or_else(|| misuse("its lists are too long for one call"))?;
        list(memory, ptr, len)
    });
    lists.collect()
}

pub fn aligned(ptr: u32, align: usize) -> Result<()> {
    if (ptr as usize).is_multiple_of(align) {
        return Ok(());
    }
    Err(misuse(format!("pointer {ptr} is not aligned to {align}")))
}

/// The discriminant of an option or a result: 0 or 1.
pub fn flag(value: u32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(misuse(format!("{value} is not a case of two"))),
    }
}
