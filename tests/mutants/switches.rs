//! Puts each mutant that cargo-mutants lists behind a switch, so that one build has them all.
//!
//!     switches TREE LIST LEFT_OUT
//!
//! rewrites the sources in `TREE`, by `LIST` (of `cargo mutants --list --json`), without the mutants whose numbers are
//! in the file `LEFT_OUT`; prints for each that is there its number, its file and where the changed piece lies now.

use proc_macro2::Span;
use quote::ToTokens;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::visit_mut::{self, VisitMut};
use syn::{Block, Expr, Signature, parse_quote};

/// Line and column, both from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
struct Place {
    line: usize,
    column: usize,
}

/// From a place to the one behind the last letter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
struct Stretch {
    start: Place,
    end: Place,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
enum Genre {
    FnValue,
    BinaryOperator,
    UnaryOperator,
    MatchArm,
    MatchArmGuard,
    #[serde(other)]
    Other,
}

/// What cargo-mutants tells of a mutant.
#[derive(Deserialize)]
struct Listed {
    file: String,
    span: Stretch,
    genre: Genre,
    replacement: String,
}

#[derive(Clone)]
struct Mutant {
    number: u32,
    genre: Genre,
    replacement: String,
}

/// Where a mutant is in what was written.
#[derive(Serialize)]
struct Put<'a> {
    number: u32,
    file: &'a str,
    at: Stretch,
}

fn stretch(first: Span, last: Span) -> Stretch {
    let place = |at: proc_macro2::LineColumn| Place {
        line: at.line,
        column: at.column + 1,
    };
    Stretch {
        start: place(first.start()),
        end: place(last.end()),
    }
}

/// The mutants of a file that are to be put into it.
struct Switches {
    mutants: BTreeMap<Stretch, Vec<Mutant>>,
}

impl Switches {
    fn of(&self, span: Span, genre: Genre) -> Vec<Mutant> {
        let here = self.mutants.get(&stretch(span, span));
        let here = here.into_iter().flatten();
        here.filter(|mutant| mutant.genre == genre).cloned().collect()
    }

    /// Lets the function return early.
    fn function(&mut self, signature: &Signature, block: &mut Block) {
        // What is called while the program is built has no switch, and `impl Trait` is one type.
        if signature.constness.is_some() {
            return;
        }
        let whole = match (block.stmts.first(), block.stmts.last()) {
            (Some(first), Some(last)) => self.mutants.get(&stretch(first.span(), last.span())),
            _ => None,
        };
        let whole = whole.cloned().unwrap_or_default();
        visit_mut::visit_block_mut(self, block);
        if signature.output.to_token_stream().to_string().contains("impl ") {
            return;
        }
        let early = whole.iter().filter(|mutant| mutant.genre == Genre::FnValue);
        let early = early.filter_map(|mutant| {
            let (number, value) = (mutant.number, syn::parse_str::<Expr>(&mutant.replacement).ok()?);
            Some(parse_quote!(if crate::mutant::on(#number) { return #value; }))
        });
        block.stmts = early.chain(std::mem::take(&mut block.stmts)).collect();
    }

    fn binary(&mut self, mut binary: syn::ExprBinary) -> Expr {
        let mutants = self.of(binary.op.span(), Genre::BinaryOperator);
        let (left, right) = (binary.left.clone(), binary.right.clone());
        self.visit_expr_mut(&mut binary.left);
        self.visit_expr_mut(&mut binary.right);
        if binds(&left) || binds(&right) {
            return Expr::Binary(binary);
        }
        let whole = Expr::Binary(binary);
        mutants.iter().fold(whole, |whole, mutant| {
            let number = mutant.number;
            match syn::parse_str::<syn::BinOp>(&mutant.replacement) {
                Ok(operator) => parse_quote!(
                    (if crate::mutant::on(#number) { (#left) #operator (#right) } else { #whole })
                ),
                Err(_) => whole,
            }
        })
    }

    fn unary(&mut self, mut unary: syn::ExprUnary) -> Expr {
        let mutants = self.of(unary.op.span(), Genre::UnaryOperator);
        let plain = unary.expr.clone();
        self.visit_expr_mut(&mut unary.expr);
        mutants.iter().fold(Expr::Unary(unary), |whole, mutant| {
            let number = mutant.number;
            parse_quote!((if crate::mutant::on(#number) { #plain } else { #whole }))
        })
    }
}

/// `let` in a condition: its names are seen behind it.
fn binds(expression: &Expr) -> bool {
    match expression {
        Expr::Let(_) => true,
        Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        Expr::Paren(paren) => binds(&paren.expr),
        _ => false,
    }
}

impl VisitMut for Switches {
    // What is computed while the program is built.
    fn visit_item_const_mut(&mut self, _: &mut syn::ItemConst) {}
    fn visit_item_static_mut(&mut self, _: &mut syn::ItemStatic) {}
    fn visit_impl_item_const_mut(&mut self, _: &mut syn::ImplItemConst) {}
    fn visit_type_mut(&mut self, _: &mut syn::Type) {}
    fn visit_pat_mut(&mut self, _: &mut syn::Pat) {}
    fn visit_generic_argument_mut(&mut self, _: &mut syn::GenericArgument) {}

    fn visit_expr_repeat_mut(&mut self, repeat: &mut syn::ExprRepeat) {
        self.visit_expr_mut(&mut repeat.expr);
    }

    fn visit_item_mod_mut(&mut self, module: &mut syn::ItemMod) {
        let mut attributes = module.attrs.iter();
        if !attributes.any(|attribute| attribute.to_token_stream().to_string().contains("test")) {
            visit_mut::visit_item_mod_mut(self, module);
        }
    }

    fn visit_item_fn_mut(&mut self, function: &mut syn::ItemFn) {
        self.function(&function.sig, &mut function.block);
    }

    fn visit_impl_item_fn_mut(&mut self, function: &mut syn::ImplItemFn) {
        self.function(&function.sig, &mut function.block);
    }

    fn visit_trait_item_fn_mut(&mut self, function: &mut syn::TraitItemFn) {
        if let Some(block) = &mut function.default {
            self.function(&function.sig, block);
        }
    }

    fn visit_expr_match_mut(&mut self, matched: &mut syn::ExprMatch) {
        let takes_all = |arm: &syn::Arm| arm.guard.is_none() && matches!(arm.pat, syn::Pat::Wild(_));
        let rest = matched.arms.iter().any(takes_all);
        for arm in &mut matched.arms {
            let mut off = self.of(arm.span(), Genre::MatchArm);
            off.retain(|_| rest);
            let guard = arm.guard.as_ref().map(|(_, guard)| guard.clone());
            let Some(guard) = guard else {
                let never = |mutant: Mutant| {
                    let number = mutant.number;
                    (Default::default(), parse_quote!(!crate::mutant::on(#number)))
                };
                visit_mut::visit_arm_mut(self, arm);
                arm.guard = off.pop().map(never);
                continue;
            };
            let guards = self.of(guard.span(), Genre::MatchArmGuard);
            visit_mut::visit_arm_mut(self, arm);
            let Some((_, now)) = arm.guard.as_mut().filter(|_| !binds(&guard)) else {
                continue;
            };
            for mutant in guards.into_iter().chain(off) {
                let number = mutant.number;
                **now = match mutant.replacement.as_str() {
                    "true" => parse_quote!((crate::mutant::on(#number) || (#now))),
                    _ => parse_quote!((!crate::mutant::on(#number) && (#now))),
                };
            }
        }
        self.visit_expr_mut(&mut matched.expr);
    }

    fn visit_expr_mut(&mut self, expression: &mut Expr) {
        let nothing = Expr::Verbatim(proc_macro2::TokenStream::new());
        match expression {
            Expr::Binary(_) | Expr::Unary(_) => {
                *expression = match std::mem::replace(expression, nothing) {
                    Expr::Binary(binary) => self.binary(binary),
                    Expr::Unary(unary) => self.unary(unary),
                    other => other,
                };
            }
            other => visit_mut::visit_expr_mut(self, other),
        }
    }
}

/// The switches of a file that was written, and the pieces that they switch.
#[derive(Default)]
struct Found(Vec<(u32, Stretch)>);

impl Found {
    fn switches(&mut self, condition: &Expr, piece: Span) {
        let text: String = condition.to_token_stream().to_string().split_whitespace().collect();
        for after in text.split("crate::mutant::on(").skip(1) {
            let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
            if let Ok(number) = digits.parse() {
                self.0.push((number, stretch(piece, piece)));
            }
        }
    }
}

impl<'a> Visit<'a> for Found {
    fn visit_expr_if(&mut self, branch: &'a syn::ExprIf) {
        if matches!(&*branch.cond, Expr::Call(_)) {
            self.switches(&branch.cond, branch.then_branch.span());
        }
        visit::visit_expr_if(self, branch);
    }

    fn visit_arm(&mut self, arm: &'a syn::Arm) {
        if let Some((_, guard)) = &arm.guard {
            self.switches(guard, arm.span());
        }
        visit::visit_arm(self, arm);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, tree, list, left_out] = &arguments[..] else {
        return Err("switches TREE LIST LEFT_OUT".into());
    };
    let list: Vec<Listed> = serde_json::from_str(&std::fs::read_to_string(list)?)?;
    let left_out = std::fs::read_to_string(left_out)?;
    let left_out: BTreeSet<&str> = left_out.split_whitespace().collect();
    let mut files: BTreeMap<String, Switches> = BTreeMap::new();
    for (number, listed) in (0u32..).zip(list) {
        if left_out.contains(number.to_string().as_str()) {
            continue;
        }
        let file = files.entry(listed.file).or_insert(Switches {
            mutants: BTreeMap::new(),
        });
        file.mutants.entry(listed.span).or_default().push(Mutant {
            number,
            genre: listed.genre,
            replacement: listed.replacement,
        });
    }
    for (name, switches) in &mut files {
        let path = Path::new(tree).join(name);
        let mut file = syn::parse_file(&std::fs::read_to_string(&path)?)?;
        switches.visit_file_mut(&mut file);
        let text = prettyplease::unparse(&file);
        let mut found = Found::default();
        found.visit_file(&syn::parse_file(&text)?);
        std::fs::write(&path, text)?;
        for (number, at) in found.0 {
            println!("{}", serde_json::to_string(&Put { number, file: name, at })?);
        }
    }
    Ok(())
}
