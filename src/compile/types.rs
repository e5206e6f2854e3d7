//! Types as written → types.

use super::report::Checker;
use crate::diag::{Diagnostic, suggest};
use crate::syntax::ast::{FieldDef, Ident, Schema as SchemaDecl, TypeExpr, TypeKind};
use standpipe_sdk::{Field, Schema, Type};
use std::collections::BTreeSet;

/// How deep schemas may stand in one another.
const MOST_DEPTH: usize = 64;

/// `decimal` without digits.
pub(super) const DECIMAL: Type = Type::Decimal {
    precision: 38,
    scale: 9,
};

impl<'a> Checker<'a> {
    /// Resolves every declared schema once, so that its mistakes are reported even if nothing uses it.
    pub(super) fn check_schemas(&self) {
        let all: Vec<&'a SchemaDecl> = self.names.borrow().schemas.values().copied().collect();
        for schema in all {
            self.named(&schema.name, &mut vec![]);
        }
    }

    /// A type, nothing if it was reported.
    pub(super) fn ty(&self, written: &TypeExpr) -> Option<Type> {
        self.type_in(written, &mut vec![])
    }

    /// A type and whether it was written with `?`.
    pub(super) fn typed(&self, written: &TypeExpr) -> Option<(Type, bool)> {
        Some((self.ty(written)?, written.nullable))
    }

    /// `within`: the schemas around it.
    fn type_in<'t>(&self, written: &'t TypeExpr, within: &mut Vec<&'t str>) -> Option<Type>
    where
        'a: 't,
    {
        Some(match &written.kind {
            TypeKind::Bool => Type::Bool,
            TypeKind::Int => Type::Int,
            TypeKind::Float => Type::Float,
            TypeKind::Decimal(None) => DECIMAL,
            &TypeKind::Decimal(Some((precision, scale))) => Type::Decimal { precision, scale },
            TypeKind::String => Type::String,
            TypeKind::Bytes => Type::Bytes,
            TypeKind::Date => Type::Date,
            TypeKind::Timestamp => Type::Timestamp,
            TypeKind::Duration => Type::Duration,
            TypeKind::Json => Type::Json,
            TypeKind::List(item) => Type::list(self.type_in(item, within)?, item.nullable),
            TypeKind::Record(fields) => Type::Record(self.fields(fields, within)?),
            TypeKind::Named(path) => match path.as_slice() {
                [name] => Type::Record(self.named(name, within)?),
                _ => {
                    self.unknown_module(path.first()?);
                    return None;
                }
            },
        })
    }

    fn named<'t>(&self, name: &'t Ident, within: &mut Vec<&'t str>) -> Option<Schema>
    where
        'a: 't,
    {
        let decl = self.names.borrow().schemas.get(name.text.as_str()).copied();
        let Some(decl) = decl else {
            let names = self.names.borrow();
            let builtin = [
                "bool",
                "int",
                "float",
                "decimal",
                "string",
                "bytes",
                "date",
                "timestamp",
                "duration",
                "json",
            ];
            let near = suggest(&name.text, names.schemas.keys().copied().chain(builtin));
            self.report(
                Diagnostic::error("E0207", name.span, format!("type `{}` not found", name.text))
                    .labelled(near.map_or_else(String::new, |near| format!("`{near}` is close")))
                    .note(if names.schemas.is_empty() {
                        "the script declares no `schema`".to_owned()
                    } else {
                        let known: Vec<&str> = names.schemas.keys().copied().collect();
                        format!("schemas here: {}", crate::diag::list_names(&known, 12))
                    }),
            );
            return None;
        };
        if let Some(known) = self.schemas.borrow().get(name.text.as_str()) {
            return known.clone();
        }
        if within.contains(&decl.name.text.as_str()) {
            self.report(
                Diagnostic::error("E0210", name.span, format!("the schema `{}` holds itself", name.text))
                    .labelled("this leads back to it")
                    .also(decl.name.span, "declared here"),
            );
            return None;
        }
        if within.len() >= MOST_DEPTH {
            self.report(
                Diagnostic::error("E0103", name.span, "schemas are nested too deeply")
                    .labelled(format!("more than {MOST_DEPTH} in one another")),
            );
            return None;
        }
        within.push(&decl.name.text);
        let fields = self.fields(&decl.fields, within);
        within.pop();
        self.schemas.borrow_mut().insert(name.text.clone(), fields.clone());
        fields
    }

    /// The fields of a record or schema; nothing if one stands twice.
    pub(super) fn fields<'t>(&self, fields: &'t [FieldDef], within: &mut Vec<&'t str>) -> Option<Schema>
    where
        'a: 't,
    {
        let mut seen = BTreeSet::new();
        let mut made = Vec::with_capacity(fields.len());
        let mut whole = true;
        for field in fields {
            if !seen.insert(field.name.text.as_str()) {
                // The parser said so.
                whole = false;
                continue;
            }
            match self.type_in(&field.ty, within) {
                Some(ty) => made.push(Field::new(field.name.text.as_str(), ty, field.ty.nullable)),
                None => whole = false,
            }
        }
        whole.then(|| Schema::new(made))
    }

    /// A name before a dot that no `use` introduces; nothing if the `use` was reported.
    pub(super) fn unknown_module(&self, name: &Ident) {
        if !self.names.borrow().modules.contains_key(name.text.as_str()) {
            self.report(
                Diagnostic::error("E0212", name.span, format!("module `{}` not found", name.text))
                    .labelled("no `use` introduces it"),
            );
        }
    }
}
