//! Schemas as Arrow schemas, and back.
//!
//! Laws
//! - What is exported owns itself: it lives until it is released, wherever it was moved.
//! - JSON is text with the extension name `arrow.json`; nothing else is read from metadata.
#![allow(unsafe_code)]

use super::{ArrowSchema, PLUGIN_FAILED};
use crate::error::{Error, Result};
use crate::types::{Field, Item, Schema, Type};
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null_mut;

const NULLABLE: i64 = 2;
const EXTENSION: &[u8] = b"ARROW:extension:name";
const JSON: &[u8] = b"arrow.json";

/// Memory behind an exported schema.
struct Held {
    _format: CString,
    _name: CString,
    metadata: Vec<u8>,
    children: Vec<*mut ArrowSchema>,
}

/// An exported schema; released when dropped, unless it was moved out.
pub struct Exported(ArrowSchema);

impl Exported {
    /// The columns of `schema` as a `+s` schema.
    ///
    /// # Errors
    /// If a name has a NUL in it.
    pub fn new(schema: &Schema) -> Result<Exported> {
        export("", &Type::Record(schema.clone()), false).map(Exported)
    }

    pub fn as_ptr(&self) -> *const ArrowSchema {
        &raw const self.0
    }

    /// The schema itself: whoever has it releases it.
    pub fn take(self) -> ArrowSchema {
        std::mem::ManuallyDrop::new(self).0
    }
}

impl Drop for Exported {
    fn drop(&mut self) {
        if let Some(release) = self.0.release {
            // SAFETY: the schema is `export`'s own, unreleased; `release` marks it.
            unsafe { release(&raw mut self.0) }
        }
    }
}

fn export(name: &str, ty: &Type, nullable: bool) -> Result<ArrowSchema> {
    let no_nul = |_| {
        Error::failed(
            PLUGIN_FAILED,
            format!("the name `{}` has a NUL in it", name.escape_debug()),
        )
    };
    let format = match ty {
        Type::Null => "n".to_owned(),
        Type::Bool => "b".to_owned(),
        Type::Int => "l".to_owned(),
        Type::Float => "g".to_owned(),
        Type::Decimal { precision, scale } => format!("d:{precision},{scale}"),
        Type::Date => "tdD".to_owned(),
        Type::Timestamp => "tsu:UTC".to_owned(),
        Type::Duration => "tDu".to_owned(),
        Type::String | Type::Json => "vu".to_owned(),
        Type::Bytes => "vz".to_owned(),
        Type::List(_) => "+l".to_owned(),
        Type::Record(_) => "+s".to_owned(),
    };
    let mut held = Box::new(Held {
        _format: CString::new(format).map_err(no_nul)?,
        _name: CString::new(name).map_err(no_nul)?,
        metadata: if *ty == Type::Json { json_metadata() } else { vec![] },
        children: vec![],
    });
    let add = |held: &mut Held, name: &str, ty: &Type, nullable: bool| -> Result<()> {
        held.children.push(Box::into_raw(Box::new(export(name, ty, nullable)?)));
        Ok(())
    };
    let outcome = match ty {
        Type::List(item) => add(&mut held, "item", &item.ty, item.nullable),
        Type::Record(schema) => schema
            .fields()
            .iter()
            .try_for_each(|f| add(&mut held, &f.name, &f.ty, f.nullable)),
        _ => Ok(()),
    };
    let schema = ArrowSchema {
        format: held._format.as_ptr(),
        name: held._name.as_ptr(),
        metadata: if held.metadata.is_empty() {
            std::ptr::null()
        } else {
            held.metadata.as_ptr().cast()
        },
        flags: if nullable || *ty == Type::Null { NULLABLE } else { 0 },
        n_children: held.children.len() as i64,
        children: if held.children.is_empty() {
            null_mut()
        } else {
            held.children.as_mut_ptr()
        },
        dictionary: null_mut(),
        release: Some(release),
        private_data: Box::into_raw(held).cast::<c_void>(),
    };
    // Dropped, and so released, if a child failed.
    let exported = Exported(schema);
    outcome?;
    Ok(std::mem::ManuallyDrop::new(exported).0)
}

unsafe extern "C" fn release(schema: *mut ArrowSchema) {
    // SAFETY: Arrow's contract: called once, with a schema that `export` made (perhaps moved); so `private_data` is the box of
    // `Held`, whose children are boxes of `export`'s own.
    unsafe {
        let Some(schema) = schema.as_mut() else { return };
        let held = Box::from_raw(schema.private_data.cast::<Held>());
        for &child in &held.children {
            let mut child = Box::from_raw(child);
            if let Some(release) = child.release {
                release(&raw mut *child);
            }
        }
        schema.release = None;
        schema.private_data = null_mut();
    }
}

/// Arrow's form of one pair: count, then length and bytes of each key and value.
fn json_metadata() -> Vec<u8> {
    let mut out = 1i32.to_ne_bytes().to_vec();
    for part in [EXTENSION, JSON] {
        out.extend((part.len() as i32).to_ne_bytes());
        out.extend(part);
    }
    out
}

/// The columns of a `+s` schema that somebody else made, each of another name. It is not released.
///
/// # Errors
/// For what is no schema of ours; the message names the column.
///
/// # Safety
/// `schema` is a schema as Arrow's C Data Interface describes it, and stays so during the call.
pub unsafe fn import(schema: &ArrowSchema) -> Result<Schema> {
    // SAFETY: the caller's promise.
    let schema = unsafe { import_input(schema)? };
    match twice(schema.fields()) {
        Some(name) => Err(wrong("", &format!("two columns are called `{name}`"))),
        None => Ok(schema),
    }
}

fn twice(fields: &[Field]) -> Option<&str> {
    let mut all = fields.iter().enumerate();
    let found = all.find(|(at, field)| fields[..*at].iter().any(|earlier| earlier.name == field.name));
    found.map(|(_, field)| &*field.name)
}

/// The same for what a host gives: columns that it computed may be called like others.
///
/// # Errors
/// As [`import`].
///
/// # Safety
/// As [`import`].
pub unsafe fn import_input(schema: &ArrowSchema) -> Result<Schema> {
    // SAFETY: the caller's promise.
    match unsafe { field(schema, 0)? }.ty {
        Type::Record(schema) => Ok(schema),
        other => Err(wrong("", &format!("the output is `{other}`, not a record"))),
    }
}

/// Deeper types than this are refused.
const DEPTH: usize = 64;

unsafe fn field(schema: &ArrowSchema, depth: usize) -> Result<Field> {
    // SAFETY: strings of a schema are NULL or end with a NUL, by the promise to `import`.
    let (name, format) = unsafe { (text(schema.name)?, text(schema.format)?) };
    let name = name.unwrap_or("");
    let fail = |what: &str| wrong(name, what);
    if schema.release.is_none() {
        return Err(fail("the schema is released"));
    }
    let format = format.ok_or_else(|| fail("the schema has no format"))?;
    if !schema.dictionary.is_null() {
        return Err(fail("dictionaries are not taken"));
    }
    if depth > DEPTH {
        return Err(fail("the type is too deep"));
    }
    let child = |at: usize| -> Result<Field> {
        if schema.children.is_null() {
            return Err(fail("children are announced and missing"));
        }
        // SAFETY: `at < n_children` below, and there are that many pointers, by the promise to `import`.
        match unsafe { (*schema.children.add(at)).as_ref() } {
            // SAFETY: a child of such a schema is one itself.
            Some(child) => unsafe { field(child, depth + 1) },
            None => Err(fail("a child is NULL")),
        }
    };
    let ty = match format {
        "n" => Type::Null,
        "b" => Type::Bool,
        "l" => Type::Int,
        "g" => Type::Float,
        "tdD" => Type::Date,
        "tsu:UTC" => Type::Timestamp,
        "tDu" => Type::Duration,
        // SAFETY: metadata is NULL or has Arrow's form, by the promise to `import`.
        "vu" if unsafe { is_json(schema.metadata) } => Type::Json,
        "vu" => Type::String,
        "vz" => Type::Bytes,
        "+l" if schema.n_children == 1 => {
            let Field { ty, nullable, .. } = child(0)?;
            Type::List(Item { ty, nullable }.into())
        }
        "+s" if (0..=1 << 20).contains(&schema.n_children) => {
            let fields: Vec<Field> = (0..schema.n_children as usize).map(child).collect::<Result<_>>()?;
            if let Some(name) = twice(&fields).filter(|_| depth > 0) {
                return Err(fail(&format!("two columns are called `{name}`")));
            }
            Type::Record(Schema::new(fields))
        }
        other => match decimal(other) {
            Some(ty) => ty,
            None => return Err(fail(&format!("the format `{other}` is none of Standpipe's"))),
        },
    };
    let nullable = schema.flags & NULLABLE != 0 || ty == Type::Null;
    Ok(Field::new(name, ty, nullable))
}

/// `d:P,S`, perhaps with the width of 128 bits.
fn decimal(format: &str) -> Option<Type> {
    let mut parts = format.strip_prefix("d:")?.split(',');
    let precision: u8 = parts.next()?.parse().ok()?;
    let scale: u8 = parts.next()?.parse().ok()?;
    let width = parts.next().is_none_or(|bits| bits == "128");
    (width && parts.next().is_none() && (1..=38).contains(&precision) && scale <= precision)
        .then_some(Type::Decimal { precision, scale })
}

unsafe fn text<'a>(text: *const c_char) -> Result<Option<&'a str>> {
    if text.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL, and ends with a NUL: the promise to `import`.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map(Some).map_err(|_| wrong("", "a name is not UTF-8"))
}

unsafe fn is_json(metadata: *const c_char) -> bool {
    if metadata.is_null() {
        return false;
    }
    let mut at = metadata.cast::<u8>();
    let mut take = |bytes: usize| -> &[u8] {
        // SAFETY: by the promise to `import` the metadata goes on for as many bytes as its own counts say, and only those are
        // taken.
        let part = unsafe { std::slice::from_raw_parts(at, bytes) };
        at = at.wrapping_add(bytes);
        part
    };
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, i32::from_ne_bytes).max(0) as usize;
    let pairs = number(take(4));
    (0..pairs).any(|_| {
        let key_len = number(take(4));
        let key = take(key_len);
        let value_len = number(take(4));
        let value = take(value_len);
        key == EXTENSION && value == JSON
    })
}

fn wrong(name: &str, what: &str) -> Error {
    let place = if name.is_empty() {
        String::new()
    } else {
        format!("column `{name}`: ")
    };
    Error::failed(PLUGIN_FAILED, format!("{place}{what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_comes_back_as_it_went() {
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
        let field = |(i, ty): (usize, Type)| Field::new(format!("c{i}"), ty.clone(), i % 2 == 0 || ty == Type::Null);
        let schema: Schema = types.into_iter().enumerate().map(field).collect();
        let exported = Exported::new(&schema).unwrap();
        // SAFETY: it is ours.
        assert_eq!(unsafe { import(&exported.0) }.unwrap(), schema);
        let bad: Schema = [Field::new("a", Type::Int, true), Field::new("b\0", Type::Int, true)]
            .into_iter()
            .collect();
        assert!(Exported::new(&bad).is_err());
    }

    #[test]
    fn foreign_formats_are_refused_by_name() {
        for format in [
            "i",
            "U",
            "d:39,2",
            "d:5,6",
            "d:5,2,256",
            "tss:UTC",
            "tsu:",
            "+L",
            "+l",
            "",
        ] {
            let format = CString::new(format).unwrap();
            let mut schema = ArrowSchema {
                format: format.as_ptr(),
                name: c"a".as_ptr(),
                ..ArrowSchema::EMPTY
            };
            schema.release = Some(release);
            // SAFETY: valid strings, no children; it is never released.
            let error = unsafe { field(&schema, 0) }.unwrap_err().to_string();
            assert!(error.contains("column `a`"), "{error}");
        }
    }
}
