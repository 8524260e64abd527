//! A page that needs nothing else: it loads nothing, follows the reader's choice of light or dark, can be
//! gone through by keys, and has a table beside every picture.

use crate::report::svg::escape;
use std::fmt::{Display, Write};

/// Rows of a table; of more, the first.
const ROWS_MAX: usize = 2000;

/// Colours that can be told apart on white and on black, and by whoever sees fewer of them.
const STYLE: &str = "
:root{color-scheme:light dark;--ink:#1c2733;--paper:#fff;--faint:#d9dee4;--soft:#5b6875;--c0:#2a6fbb;--c1:#d9822b;--c2:#2c8a57;--c3:#8a5fb0;--c4:#7b8794;--bad:#c0392b;--heat:42,111,187}
@media(prefers-color-scheme:dark){:root{--ink:#dde5ee;--paper:#12171d;--faint:#34404c;--soft:#9aa7b4;--c0:#6db1ff;--c1:#ffb266;--c2:#63cf95;--c3:#c59bf0;--c4:#8795a3;--bad:#ff7b6b;--heat:109,177,255}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1460px;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:1.8rem}h3{font-size:1rem;margin:.8rem 0 .2rem}
a{color:var(--c0)}a.skip{position:absolute;left:-99rem}a.skip:focus{left:1rem;background:var(--paper);padding:.3rem}
:focus-visible{outline:2px solid var(--c1);outline-offset:2px}
nav a{margin-right:1rem}.soft{color:var(--soft)}
.grids{display:grid;grid-template-columns:repeat(auto-fill,minmax(400px,1fr));gap:.8rem}
.pair{display:flex;flex-wrap:wrap;gap:1rem}.pair>figure{flex:1 1 380px;min-width:0}
figure{margin:.4rem 0}figcaption{margin:.2rem 0}
svg{width:100%;height:auto}svg text{font-size:11px;fill:var(--ink)}svg .title{font-size:13px;font-weight:600}
svg .grid{stroke:var(--faint)}polyline{fill:none;stroke-width:2}
polyline.c0{stroke:var(--c0)}polyline.c1{stroke:var(--c1);stroke-dasharray:5 3}
rect.c0,circle.c0{fill:var(--c0)}rect.c1,circle.c1{fill:var(--c1)}rect.c2{fill:var(--c2)}rect.c3{fill:var(--c3)}rect.c4{fill:var(--c4)}.edge{stroke:var(--paper);stroke-width:.6}
svg text.on{fill:var(--paper)}
.key span{display:inline-block;margin-right:1.2rem}.key i{display:inline-block;width:1rem;height:.7rem;vertical-align:middle;margin-right:.4rem}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.15rem .55rem;text-align:right;border-bottom:1px solid var(--faint);font-weight:400}
thead th{font-weight:600}td:first-child,th:first-child{text-align:left}.wide{overflow:auto;max-height:32rem}.wide td{white-space:nowrap}
rect.slow{stroke:var(--bad);stroke-width:2}svg text.dark{fill:#10161c}summary{cursor:pointer}
.bad{color:var(--bad);font-weight:600}";

/// A page, from top to bottom.
pub(super) struct Sheet {
    title: String,
    body: String,
    /// Identifier and heading of each section.
    sections: Vec<(String, String)>,
}

impl Sheet {
    pub(super) fn new(title: &str) -> Sheet {
        Sheet {
            title: title.to_owned(),
            body: String::new(),
            sections: Vec::new(),
        }
    }

    /// Begins a section.
    pub(super) fn section(&mut self, heading: &str) {
        let id = format!("s{}", self.sections.len());
        let _ = writeln!(self.body, "<h2 id=\"{id}\">{}</h2>", escape(heading));
        self.sections.push((id, heading.to_owned()));
    }

    /// Adds a paragraph.
    pub(super) fn say(&mut self, text: &str) {
        let _ = writeln!(self.body, "<p>{}</p>", escape(text));
    }

    /// Adds what is markup already.
    pub(super) fn markup(&mut self, markup: &str) {
        self.body.push_str(markup);
    }

    /// Adds a picture with its caption, and the table that says the same.
    pub(super) fn figure(&mut self, caption: &str, picture: &str, table: &Table) {
        let _ = writeln!(
            self.body,
            "<figure><figcaption>{}</figcaption>\n{picture}<details><summary>The same as a table</summary>\n{}</details></figure>",
            escape(caption),
            table.draw(caption)
        );
    }

    /// Adds a table.
    pub(super) fn table(&mut self, name: &str, table: &Table) {
        self.body.push_str(&table.draw(name));
    }

    /// The page.
    pub(super) fn finish(self) -> String {
        let title = escape(&self.title);
        let mut out = format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n<meta name=\"generator\" content=\"shardloom\">\n\
             <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\n<style>{STYLE}</style></head><body>\n\
             <a class=\"skip\" href=\"#main\">To the contents</a>\n<h1>{title}</h1>\n"
        );
        if self.sections.len() > 2 {
            out.push_str("<nav aria-label=\"Sections\">");
            for (id, heading) in &self.sections {
                let _ = write!(out, "<a href=\"#{id}\">{}</a> ", escape(heading));
            }
            out.push_str("</nav>\n");
        }
        let _ = write!(
            out,
            "<main id=\"main\">\n{}</main></body></html>\n",
            self.body
        );
        out
    }
}

/// Whether text is such a page.
pub(super) fn is_sheet(text: &str) -> bool {
    text.starts_with("<!doctype html>") && text.contains("content=\"shardloom\"")
}

/// A table: the first column names the rows.
#[derive(Default)]
pub(super) struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    left_out: usize,
}

impl Table {
    pub(super) fn new(head: &[&str]) -> Table {
        Table {
            head: head.iter().map(|name| (*name).to_owned()).collect(),
            ..Table::default()
        }
    }

    /// Adds a row; of very many, only the first are shown.
    pub(super) fn row<T: Display>(&mut self, cells: impl IntoIterator<Item = T>) {
        if self.rows.len() >= ROWS_MAX {
            self.left_out += 1;
            return;
        }
        self.rows
            .push(cells.into_iter().map(|cell| cell.to_string()).collect());
    }

    /// The table, which scrolls by keys too, where it is long.
    fn draw(&self, name: &str) -> String {
        let mut out = format!(
            "<div class=\"wide\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table><thead><tr>",
            quoted(name)
        );
        for cell in &self.head {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(cell));
        }
        out.push_str("</tr></thead><tbody>\n");
        for row in &self.rows {
            out.push_str("<tr>");
            for (number, cell) in row.iter().enumerate() {
                let cell = escape(cell);
                match number {
                    0 => out.push_str(&format!("<th scope=\"row\">{cell}</th>")),
                    _ => out.push_str(&format!("<td>{cell}</td>")),
                }
            }
            out.push_str("</tr>\n");
        }
        out.push_str("</tbody></table></div>\n");
        if self.left_out > 0 {
            let _ = writeln!(out, "<p class=\"soft\">… and {} more</p>", self.left_out);
        }
        out
    }
}

/// A key of colours.
pub(super) fn key(names: &[(&str, &str)]) -> String {
    let mut out = String::from("<p class=\"key\">");
    for (class, name) in names {
        let _ = write!(
            out,
            "<span><i style=\"background:var(--{class})\"></i>{}</span>",
            escape(name)
        );
    }
    out.push_str("</p>\n");
    out
}

/// Text for an attribute.
pub(super) fn quoted(text: &str) -> String {
    escape(text).replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_loads_nothing_and_keeps_names_as_text() {
        let mut sheet = Sheet::new("a <b>");
        let mut table = Table::new(&["name", "bytes"]);
        table.row(["<script>x</script>", "1"]);
        for heading in ["One", "Two", "Three"] {
            sheet.section(heading);
        }
        sheet.figure("x \"y\"", "<svg></svg>", &table);
        let page = sheet.finish();
        assert!(is_sheet(&page) && !is_sheet("<!doctype html><p>mine"));
        assert!(
            !page.contains("<script") && !page.contains("http"),
            "{page}"
        );
        assert!(page.contains("aria-label=\"x &quot;y&quot;\"") && page.contains("<nav"));
    }
}
