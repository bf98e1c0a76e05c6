//! The small things that all parts of the rewriting share.

/// The most bytes that are copied between two epoch checks, by one instruction or by one call of a
/// [`Divisible`] function.
pub const PIECE_BYTES: u32 = 64 * 1024;

/// An imported function whose calls can be divided. Its last two parameters are a pointer and a
/// length, and one call for a range does the same as one call for each part of it, in order. It
/// returns nothing or an error number, 0 for success. A call for more than [`PIECE_BYTES`] becomes
/// several.
pub struct Divisible {
    /// The module name of the import.
    pub module: &'static str,
    /// The name of the import.
    pub name: &'static str,
}

/// Why something could not be rewritten, in words that a user can act on.
pub type Result<T> = std::result::Result<T, String>;

/// The sentence for an error of the parser, which a valid module does not have.
pub fn damaged(error: wasmparser::BinaryReaderError) -> String {
    format!("not a valid module (at byte {}): {}", error.offset(), error.message())
}

/// Writes a number as unsigned LEB128.
pub fn write_u32(out: &mut Vec<u8>, number: usize) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
