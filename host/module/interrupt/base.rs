//! What all parts of the rewriting share.

/// What is done at most between two looks at the clock: bytes copied by one instruction, or by one
/// call of a [`Divisible`] function.
pub const PIECE_BYTES: u32 = 64 * 1024;

/// An imported function whose last two parameters are a pointer and a length, which does the same
/// for a range as for the parts of it in their order. It has no result, or an error number, 0 where
/// there is none. Calls with more than [`PIECE_BYTES`] become several.
pub struct Divisible {
    pub module: &'static str,
    pub name: &'static str,
}

/// Why something could not be rewritten, in words that a user can act on.
pub type Result<T> = std::result::Result<T, String>;

pub fn damaged(error: wasmparser::BinaryReaderError) -> String {
    format!("not a valid module (at byte {}): {}", error.offset(), error.message())
}

/// Writes a number as LEB128, the format's form of numbers.
pub fn write_u32(out: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
