//! What a plugin's process and its host say to each other: frames of a kind and a body, over a socket.
//!
//! Laws
//! - Whoever reads believes nothing: every read is bounded by the body, every count by what is left of it. A body that cannot be read
//!   is [`Broken`], never a panic.
//! - Both ends are the same program of the same version (`HELLO` sees to it): there is no other compatibility.
//! - A call has a number, which all that is said in it repeats: what is said in no call, or in another one, is no answer.

use standpipe_sdk::ffi::{ErrorOut, Status};
use standpipe_sdk::{Field, Item, Schema, Type};

/// The longest frame behind its length, in bytes: what a library is, schemas, arguments, and of rows where their columns lie (about 60
/// bytes for one), never what is in them.
pub(super) const LONGEST: usize = 1 << 20;
/// The longest body.
pub(super) const LONGEST_BODY: usize = LONGEST - HEAD;
/// The longest text that is said or complained of; what is longer is cut.
pub(super) const LONGEST_TEXT: usize = 32 << 10;
/// Deeper types are refused.
const DEPTH: usize = 64;

/// A question of the host's, or its answer to one of the plugin's.
pub(super) mod ask {
    pub(in super::super) const HELLO: u8 = 1;
    pub(in super::super) const BIND: u8 = 2;
    pub(in super::super) const UNBIND: u8 = 3;
    pub(in super::super) const CREATE: u8 = 4;
    pub(in super::super) const PROCESS: u8 = 5;
    pub(in super::super) const FINISH: u8 = 6;
    pub(in super::super) const DESTROY: u8 = 7;
    /// The status that a service answers with.
    pub(in super::super) const ANSWER: u8 = 8;
    pub(in super::super) const PUBLISH: u8 = 9;
    pub(in super::super) const SNAPSHOT: u8 = 10;
    pub(in super::super) const RESTORE: u8 = 11;
    /// Calls of an aggregate.
    pub(in super::super) const ROOM: u8 = 12;
    pub(in super::super) const ROOM_TO_MERGE: u8 = 13;
    pub(in super::super) const UPDATE: u8 = 14;
    pub(in super::super) const MERGE: u8 = 15;
    pub(in super::super) const STATE: u8 = 16;
    pub(in super::super) const FINALIZE: u8 = 17;
    pub(in super::super) const CLEAR: u8 = 18;
}

/// What the plugin's process says.
pub(super) mod tell {
    /// The end of a call.
    pub(in super::super) const DONE: u8 = 32;
    /// Services of the host's: all but `LOG` wait for an `ANSWER`.
    pub(in super::super) const EMIT: u8 = 33;
    pub(in super::super) const REJECT: u8 = 34;
    pub(in super::super) const RESERVE: u8 = 35;
    pub(in super::super) const LOG: u8 = 36;
}

/// The start of a frame: how long the rest is, its kind, and the number of the call.
pub(super) fn head(kind: u8, call: u32, body: &[u8]) -> [u8; 9] {
    let len = u32::try_from(body.len() + HEAD).unwrap_or(u32::MAX).to_le_bytes();
    let call = call.to_le_bytes();
    [len[0], len[1], len[2], len[3], kind, call[0], call[1], call[2], call[3]]
}

/// The kind and the number of a frame, in bytes.
pub(super) const HEAD: usize = 5;

/// The kind, the number of the call and the body, of what stands behind the length.
pub(super) fn parts(frame: &[u8]) -> Read<(u8, u32, &[u8])> {
    let mut frame = Reader(frame);
    Ok((frame.u8()?, frame.u32()?, frame.0))
}

/// A body that cannot be read, or that is none of what was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Broken;

pub(super) type Read<T> = Result<T, Broken>;

/// A body as it is written.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    pub(super) fn u32(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend(bytes);
        self
    }

    /// A list that may be missing.
    pub(super) fn numbers(&mut self, numbers: Option<&[i32]>) -> &mut Self {
        let Some(numbers) = numbers else { return self.u8(0) };
        self.u8(1).u32(numbers.len() as u32);
        for &number in numbers {
            self.i32(number);
        }
        self
    }

    /// A text that may be missing.
    pub(super) fn text(&mut self, text: Option<&str>) -> &mut Self {
        match text {
            Some(text) => self.u8(1).bytes(text.as_bytes()),
            None => self.u8(0),
        }
    }

    pub(super) fn schema(&mut self, schema: &Schema) -> &mut Self {
        self.u32(schema.width() as u32);
        for field in schema.fields() {
            self.bytes(field.name.as_bytes())
                .u8(field.nullable.into())
                .ty(&field.ty);
        }
        self
    }

    fn ty(&mut self, ty: &Type) -> &mut Self {
        match ty {
            Type::Null => self.u8(0),
            Type::Bool => self.u8(1),
            Type::Int => self.u8(2),
            Type::Float => self.u8(3),
            Type::Decimal { precision, scale } => self.u8(4).u8(*precision).u8(*scale),
            Type::Date => self.u8(5),
            Type::Timestamp => self.u8(6),
            Type::Duration => self.u8(7),
            Type::String => self.u8(8),
            Type::Bytes => self.u8(9),
            Type::Json => self.u8(10),
            Type::List(item) => self.u8(11).u8(item.nullable.into()).ty(&item.ty),
            Type::Record(schema) => self.u8(12).schema(schema),
        }
    }

    pub(super) fn error(&mut self, error: &ErrorOut) -> &mut Self {
        self.u32(error.flags)
            .u64(error.row as u64)
            .i32(error.column)
            .u32(error.retry_ms);
        self.bytes(error.param().as_bytes()).bytes(error.text().as_bytes())
    }
}

/// What is left of a body.
pub(super) struct Reader<'b>(pub(super) &'b [u8]);

impl<'b> Reader<'b> {
    /// Nothing is left.
    pub(super) fn end(&self) -> Read<()> {
        match self.0 {
            [] => Ok(()),
            _ => Err(Broken),
        }
    }

    fn take(&mut self, bytes: usize) -> Read<&'b [u8]> {
        let (taken, left) = self.0.split_at_checked(bytes).ok_or(Broken)?;
        self.0 = left;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        self.take(N)?.try_into().map_err(|_| Broken)
    }

    pub(super) fn u8(&mut self) -> Read<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Read<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Read<i32> {
        self.array().map(i32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Read<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn flag(&mut self) -> Read<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Broken),
        }
    }

    pub(super) fn bytes(&mut self) -> Read<&'b [u8]> {
        let len = self.u32()? as usize;
        self.take(len)
    }

    pub(super) fn str(&mut self) -> Read<&'b str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Broken)
    }

    pub(super) fn text(&mut self) -> Read<Option<&'b str>> {
        match self.flag()? {
            true => self.str().map(Some),
            false => Ok(None),
        }
    }

    /// How many follow, each of which takes `least` bytes or more.
    pub(super) fn count(&mut self, least: usize) -> Read<usize> {
        let count = self.u32()? as usize;
        if count > self.0.len() / least {
            return Err(Broken);
        }
        Ok(count)
    }

    pub(super) fn numbers(&mut self) -> Read<Option<Vec<i32>>> {
        if !self.flag()? {
            return Ok(None);
        }
        let count = self.count(4)?;
        (0..count).map(|_| self.i32()).collect::<Read<_>>().map(Some)
    }

    pub(super) fn schema(&mut self) -> Read<Schema> {
        self.schema_in(0)
    }

    fn schema_in(&mut self, depth: usize) -> Read<Schema> {
        // A name's length, the nullability and the type are six bytes.
        let count = self.count(6)?;
        let mut fields = vec![];
        for _ in 0..count {
            let (name, nullable) = (self.str()?, self.flag()?);
            fields.push(Field::new(name, self.ty(depth + 1)?, nullable));
        }
        Ok(Schema::new(fields))
    }

    fn ty(&mut self, depth: usize) -> Read<Type> {
        if depth > DEPTH {
            return Err(Broken);
        }
        Ok(match self.u8()? {
            0 => Type::Null,
            1 => Type::Bool,
            2 => Type::Int,
            3 => Type::Float,
            4 => {
                let (precision, scale) = (self.u8()?, self.u8()?);
                if !(1..=38).contains(&precision) || scale > precision {
                    return Err(Broken);
                }
                Type::Decimal { precision, scale }
            }
            5 => Type::Date,
            6 => Type::Timestamp,
            7 => Type::Duration,
            8 => Type::String,
            9 => Type::Bytes,
            10 => Type::Json,
            11 => {
                let nullable = self.flag()?;
                let ty = self.ty(depth + 1)?;
                Type::List(Item { ty, nullable }.into())
            }
            12 => Type::Record(self.schema_in(depth + 1)?),
            _ => return Err(Broken),
        })
    }

    /// The error that a call left.
    pub(super) fn error(&mut self) -> Read<ErrorOut> {
        let mut error = ErrorOut::EMPTY;
        (error.flags, error.row) = (self.u32()?, self.u64()? as i64);
        (error.column, error.retry_ms) = (self.i32()?, self.u32()?);
        let (param, message) = (self.bytes()?, self.bytes()?);
        // Readers look for the NUL or the end.
        for (to, from) in [(&mut error.param[..], param), (&mut error.message[..], message)] {
            let len = from.len().min(to.len());
            to[..len].copy_from_slice(&from[..len]);
        }
        Ok(error)
    }
}

/// A text of the plugin's, cut at a character.
pub(super) fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

/// Writes a text into an error, cut at a character.
pub(super) fn write(to: &mut [u8], text: &str) {
    let end = text.floor_char_boundary(to.len() - 1);
    to[..end].copy_from_slice(&text.as_bytes()[..end]);
    to[end] = 0;
}

/// An error with this text.
pub(super) fn error_of(text: &str, param: &str) -> ErrorOut {
    let mut error = ErrorOut::EMPTY;
    write(&mut error.message, text);
    write(&mut error.param, param);
    error
}

/// The end of a call. If it is well, what it gives stands behind it.
pub(super) struct Done {
    pub(super) status: Status,
    pub(super) error: ErrorOut,
    /// Our side of the boundary, in the plugin's process, found it at fault.
    pub(super) complaint: Option<String>,
    /// It wanted more memory than there is for what a call gives.
    pub(super) refused: bool,
}

impl Done {
    /// Whether the plugin did what was asked: only then there is output.
    pub(super) fn is_well(&self) -> bool {
        self.status >= 0 && self.complaint.is_none()
    }

    pub(super) fn write(&self, to: &mut Writer) {
        to.i32(self.status).error(&self.error);
        to.text(self.complaint.as_deref().map(cut));
        to.u8(self.refused.into());
    }

    pub(super) fn read(from: &mut Reader<'_>) -> Read<Done> {
        Ok(Done {
            status: from.i32()?,
            error: from.error()?,
            complaint: from.text()?.map(str::to_owned),
            refused: from.flag()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_written_is_read() {
        let record = Type::Record([Field::new("x", Type::Float, false)].into_iter().collect());
        let types = [
            Type::Null,
            Type::Bool,
            Type::Int,
            Type::Float,
            Type::Decimal {
                precision: 38,
                scale: 5,
            },
            Type::String,
            Type::Bytes,
            Type::Date,
            Type::Timestamp,
            Type::Duration,
            Type::Json,
            Type::list(record, true),
        ];
        let field = |(i, ty): (usize, Type)| Field::new(format!("c{i}"), ty, i % 2 == 0);
        let schema: Schema = types.into_iter().enumerate().map(field).collect();
        let mut to = Writer::default();
        to.schema(&schema)
            .numbers(Some(&[1, -1]))
            .numbers(None)
            .text(Some("ä"))
            .text(None);
        let done = Done {
            status: -5,
            error: error_of("no", "key"),
            complaint: None,
            refused: true,
        };
        done.write(&mut to);
        let mut from = Reader(&to.0);
        assert_eq!(from.schema(), Ok(schema));
        assert_eq!((from.numbers(), from.numbers()), (Ok(Some(vec![1, -1])), Ok(None)));
        assert_eq!((from.text(), from.text()), (Ok(Some("ä")), Ok(None)));
        let read = Done::read(&mut from).unwrap();
        assert_eq!((read.status, read.refused, read.error.text()), (-5, true, "no".into()));
        assert!(from.0.is_empty());
        // Cut off anywhere, nothing can be read to its end.
        for end in 0..to.0.len() {
            let mut from = Reader(&to.0[..end]);
            let all = |from: &mut Reader<'_>| -> Read<()> {
                from.schema()?;
                from.numbers()?;
                from.numbers()?;
                from.text()?;
                from.text()?;
                Done::read(from).map(drop)
            };
            assert_eq!(all(&mut from), Err(Broken), "{end}");
        }
    }

    #[test]
    fn types_without_end_are_refused() {
        let mut deep = Writer::default();
        deep.u32(1).bytes(b"x").u8(0);
        deep.0.extend([11, 0].repeat(1 << 20));
        assert_eq!(Reader(&deep.0).schema(), Err(Broken));
        assert_eq!(Reader(&[255; 64]).schema(), Err(Broken));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![0u8..13, any::<u8>()], 0..200)) {
            let _ = Reader(&bytes).schema();
            let _ = Reader(&bytes).numbers();
            let _ = Done::read(&mut Reader(&bytes));
        }
    }
}
