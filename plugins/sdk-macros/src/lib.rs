//! `#[scalar]` and `#[derive(Params)]`: the two places where a plugin's author would write the same thing twice.
//!
//! Laws
//! - What is generated is what an author could have written: specs and calls of the SDK's public functions.
//! - A mistake is an error of the compiler at the place of the mistake.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::{format_ident, quote, quote_spanned};
use syn::parse::{Parse, ParseStream};
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DeriveInput, Error, Expr, Fields, FnArg, Ident, ItemFn, Lit, LitStr, Meta, Pat, Result,
    ReturnType, Token, Type, parse_macro_input,
};

/// Makes a function of scripts of a Rust function.
///
/// Parameters are `i64`, `f64`, `bool`, `&str`, or an `Option` of one that then sees nulls; without an `Option` a null argument makes
/// the result null. It gives `i64`, `f64`, `bool`, `String`, an `Option` of one, or a `Result`, whose error is a bad row.
/// `#[scalar(name = "x", example = "x(1) == 2")]`; the doc comment's first line is what scripts' authors read.
#[proc_macro_attribute]
pub fn scalar(arguments: TokenStream, function: TokenStream) -> TokenStream {
    let arguments = parse_macro_input!(arguments as ScalarArguments);
    let function = parse_macro_input!(function as ItemFn);
    scalar_of(&arguments, &function)
        .unwrap_or_else(|e| e.to_compile_error())
        .into()
}

/// Makes a stage's arguments of a struct's fields.
///
/// A field of type `ColumnArg` (or with `#[param(item)]`) stands behind the stage's name, in order; any other is an option
/// `name: value`, with `#[param(default = 10)]` or an `Option` if it may be left out. Doc comments are the reference.
#[proc_macro_derive(Params, attributes(param))]
pub fn params(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    params_of(&input).unwrap_or_else(|e| e.to_compile_error()).into()
}

#[derive(Default)]
struct ScalarArguments {
    name: Option<String>,
    examples: Vec<String>,
}

impl Parse for ScalarArguments {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let mut out = ScalarArguments::default();
        while !input.is_empty() {
            let key: Ident = input.parse()?;
            input.parse::<Token![=]>()?;
            let value: LitStr = input.parse()?;
            match key.to_string().as_str() {
                "name" => out.name = Some(value.value()),
                "example" => out.examples.push(value.value()),
                _ => return Err(Error::new(key.span(), "`name` and `example` are known here")),
            }
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(out)
    }
}

fn scalar_of(arguments: &ScalarArguments, function: &ItemFn) -> Result<Tokens> {
    let signature = &function.sig;
    if !signature.generics.params.is_empty() || signature.asyncness.is_some() || signature.unsafety.is_some() {
        return Err(Error::new(signature.span(), "a plain function is needed here"));
    }
    let ReturnType::Type(_, returns) = &signature.output else {
        return Err(Error::new(signature.span(), "a function gives a value"));
    };
    let (rust_name, visibility) = (&signature.ident, &function.vis);
    let name = arguments.name.clone().unwrap_or_else(|| rust_name.to_string());
    let (about, examples) = (about(&function.attrs), &arguments.examples);
    let mut params: Vec<(Ident, &Type)> = vec![];
    for input in &signature.inputs {
        match input {
            FnArg::Typed(typed) => match &*typed.pat {
                Pat::Ident(pattern) => params.push((pattern.ident.clone(), &typed.ty)),
                other => return Err(Error::new(other.span(), "a parameter has a name")),
            },
            FnArg::Receiver(receiver) => return Err(Error::new(receiver.span(), "a function has no `self`")),
        }
    }
    let declared = params.iter().map(|(ident, ty)| {
        let text = ident.to_string();
        quote_spanned! { ty.span() =>
            ::standpipe_sdk::scalar::ScalarParam {
                name: #text,
                ty: <#ty as ::standpipe_sdk::scalar::Take<'_>>::TYPE,
                default: ::std::option::Option::None,
            }
        }
    });
    let any_null = params
        .iter()
        .map(|(_, ty)| quote!(<#ty as ::standpipe_sdk::scalar::Take<'_>>::NULLABLE));
    let columns: Vec<Ident> = (0..params.len()).map(|at| format_ident!("column_{at}")).collect();
    let taken = columns.iter().zip(&params).enumerate().map(|(at, (column, (_, ty)))| {
        quote!(let #column = <#ty as ::standpipe_sdk::scalar::Take<'a>>::column(rows.columns[#at], rows.arena)?;)
    });
    let values = columns
        .iter()
        .zip(&params)
        .map(|(column, (_, ty))| quote!(<#ty as ::standpipe_sdk::scalar::Take<'a>>::get(#column, row)));
    Ok(quote! {
        #function

        #[doc(hidden)]
        #[allow(non_camel_case_types)]
        #visibility enum #rust_name {}

        impl ::standpipe_sdk::scalar::Scalar for #rust_name {
            const SPEC: ::standpipe_sdk::scalar::ScalarSpec = {
                const OWN_NULLS: bool = false #(|| #any_null)*;
                fn eval<'a>(
                    rows: &::standpipe_sdk::scalar::Rows<'_, 'a>,
                ) -> ::standpipe_sdk::Result<::standpipe_sdk::Column<'a>> {
                    let valid = if OWN_NULLS {
                        ::std::option::Option::None
                    } else {
                        ::standpipe_sdk::scalar::valid_rows(rows)?
                    };
                    #(#taken)*
                    <#returns as ::standpipe_sdk::scalar::Give>::column(rows, valid, |row| #rust_name(#(#values),*))
                }
                ::standpipe_sdk::scalar::ScalarSpec {
                    name: #name,
                    about: #about,
                    params: &[#(#declared),*],
                    returns: <#returns as ::standpipe_sdk::scalar::Give>::TYPE,
                    nullable: <#returns as ::standpipe_sdk::scalar::Give>::NULLABLE,
                    nulls: if OWN_NULLS {
                        ::standpipe_sdk::scalar::Nulls::Own
                    } else {
                        ::standpipe_sdk::scalar::Nulls::Propagate
                    },
                    fallible: <#returns as ::standpipe_sdk::scalar::Give>::FALLIBLE,
                    examples: &[#(#examples),*],
                    eval,
                }
            };
        }
    })
}

/// The first line of a doc comment, without a dot at its end.
fn about(attributes: &[Attribute]) -> String {
    let line = attributes.iter().find_map(|attribute| match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value().trim().trim_end_matches('.').to_owned()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    });
    line.unwrap_or_default()
}

#[derive(Default)]
struct ParamArguments {
    default: Option<String>,
    item: bool,
}

fn param_arguments(attributes: &[Attribute]) -> Result<ParamArguments> {
    let mut out = ParamArguments::default();
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("param")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("item") {
                out.item = true;
                return Ok(());
            }
            if !meta.path.is_ident("default") {
                return Err(meta.error("`default = …` and `item` are known here"));
            }
            let value = meta.value()?;
            let sign = if value.parse::<Option<Token![-]>>()?.is_some() {
                "-"
            } else {
                ""
            };
            out.default = Some(match value.parse::<Lit>()? {
                Lit::Str(text) => format!("\"{}\"", text.value()),
                Lit::Int(number) => format!("{sign}{}", number.base10_digits()),
                Lit::Float(number) => format!("{sign}{}", number.base10_digits()),
                Lit::Bool(value) => value.value.to_string(),
                other => {
                    return Err(Error::new(
                        other.span(),
                        "text, a number, `true` or `false` is needed here",
                    ));
                }
            });
            Ok(())
        })?;
    }
    Ok(out)
}

fn is_column(ty: &Type) -> bool {
    matches!(ty, Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "ColumnArg"))
}

fn params_of(input: &DeriveInput) -> Result<Tokens> {
    let fields = match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => fields.named.iter().collect(),
            Fields::Unit => vec![],
            Fields::Unnamed(fields) => return Err(Error::new(fields.span(), "arguments have names")),
        },
        _ => return Err(Error::new(input.span(), "a struct is needed here")),
    };
    let is_unit = matches!(&input.data, Data::Struct(data) if matches!(data.fields, Fields::Unit));
    let (mut kinds, mut abouts, mut options, mut reads) = (vec![], vec![], vec![], vec![]);
    let (mut names, mut locals) = (vec![], vec![]);
    for field in fields {
        let (Some(ident), ty) = (&field.ident, &field.ty) else {
            continue;
        };
        let (name, doc) = (ident.to_string(), about(&field.attrs));
        let arguments = param_arguments(&field.attrs)?;
        // A field may have any name, also one that stands in the code around it.
        let read_as = format_ident!("field_{ident}");
        names.push(ident);
        locals.push(read_as.clone());
        if arguments.item || is_column(ty) {
            let at = kinds.len();
            kinds.push(quote_spanned!(ty.span() => <#ty as ::standpipe_sdk::plugin::FromArg>::KIND));
            abouts.push(if doc.is_empty() { name.clone() } else { doc });
            reads.push(quote!(let #read_as = read::<#ty>(call.items.get(#at), #name, call.span, &mut wrong);));
            continue;
        }
        let (default, required) = match &arguments.default {
            Some(text) => (quote!(::std::option::Option::Some(#text)), quote!(false)),
            None => (
                quote!(::std::option::Option::None),
                quote!(!<#ty as ::standpipe_sdk::plugin::FromArg>::OPTIONAL),
            ),
        };
        options.push(quote_spanned! { ty.span() =>
            ::standpipe_sdk::spec::Param {
                name: #name,
                arg: <#ty as ::standpipe_sdk::plugin::FromArg>::KIND,
                default: #default,
                required: #required,
                about: #doc,
            }
        });
        reads.push(quote!(let #read_as = read::<#ty>(call.option(#name), #name, call.span, &mut wrong);));
    }
    let (name, doc, about_items, count) = (&input.ident, about(&input.attrs), abouts.join(", "), kinds.len());
    let (generics, types, bounds) = input.generics.split_for_impl();
    let made = match is_unit {
        true => quote!(#name),
        false => quote!(#name { #(#names: #locals),* }),
    };
    Ok(quote! {
        impl #generics ::standpipe_sdk::plugin::Params for #name #types #bounds {
            const ABOUT: &'static str = #doc;
            const ITEMS: ::standpipe_sdk::spec::Items = ::standpipe_sdk::spec::Items {
                arg: ::standpipe_sdk::spec::ArgKind::Each(&[#(#kinds),*]),
                min: #count,
                max: #count,
                about: #about_items,
                ..::standpipe_sdk::spec::Items::NONE
            };
            const OPTIONS: &'static [::standpipe_sdk::spec::Param] = &[#(#options),*];

            fn of(
                call: &::standpipe_sdk::spec::Call<'_>,
            ) -> ::std::result::Result<Self, ::std::vec::Vec<::standpipe_sdk::spec::Complaint>> {
                #[allow(unused_imports)]
                use ::standpipe_sdk::plugin::read;
                #[allow(unused_mut)]
                let mut wrong = ::std::vec::Vec::new();
                #(#reads)*
                match (#(#locals,)*) {
                    (#(::std::option::Option::Some(#locals),)*) if wrong.is_empty() => ::std::result::Result::Ok(#made),
                    _ => ::std::result::Result::Err(wrong),
                }
            }
        }
    })
}
