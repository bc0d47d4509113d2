//! HTML to text: what a person would read of a page, by html5ever's tokenizer.
//!
//! Character references are resolved, tags and comments left out with the content of scripts, styles and
//! templates; white space is folded and a block begins a line, as the makers of WET files do it.

use html5ever::tendril::StrTendril;
use html5ever::tokenizer::states::RawKind;
use html5ever::tokenizer::{
    BufferQueue, StartTag, Tag, Token, TokenSink, TokenSinkResult, Tokenizer, TokenizerOpts,
};
use std::cell::{Cell, RefCell};

/// The text of a page; `html` may hold bytes that are not UTF-8.
pub(crate) fn to_text(html: &[u8]) -> Vec<u8> {
    let sink = Text { out: RefCell::new(String::with_capacity(html.len() / 4)), ..Text::default() };
    let tokenizer = Tokenizer::new(sink, TokenizerOpts { exact_errors: false, ..TokenizerOpts::default() });
    let input = BufferQueue::default();
    // A tendril holds at most 4 GiB; a layer is far smaller.
    input.push_back(StrTendril::from_slice(&String::from_utf8_lossy(html)));
    let _ = tokenizer.feed(&input);
    tokenizer.end();
    let mut text = tokenizer.sink.out.into_inner();
    text.truncate(text.trim_end().len());
    text.into_bytes()
}

#[derive(Default)]
struct Text {
    out: RefCell<String>,
    /// How deep in elements whose content is not shown.
    hidden: Cell<usize>,
    /// How deep in elements whose white space counts.
    preformatted: Cell<usize>,
}

impl Text {
    fn characters(&self, text: &str) {
        if self.hidden.get() > 0 {
            return;
        }
        let mut out = self.out.borrow_mut();
        if self.preformatted.get() > 0 {
            out.push_str(text);
            return;
        }
        for c in text.chars() {
            // HTML's own white space; a no-break space is text.
            if !matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0c') {
                out.push(c);
            } else if !out.is_empty() && !out.ends_with([' ', '\n']) {
                out.push(' ');
            }
        }
    }

    fn line(&self) {
        let mut out = self.out.borrow_mut();
        let end = out.trim_end_matches(' ').len();
        out.truncate(end);
        if !out.is_empty() && !out.ends_with('\n') {
            out.push('\n');
        }
    }

    fn tag(&self, tag: &Tag) -> TokenSinkResult<()> {
        let name: &str = &tag.name;
        let opens = tag.kind == StartTag;
        let count = |cell: &Cell<usize>| {
            cell.set(if opens { cell.get() + 1 } else { cell.get().saturating_sub(1) });
        };
        match name {
            "script" | "style" | "template" => count(&self.hidden),
            "pre" | "textarea" => count(&self.preformatted),
            _ => {}
        }
        if is_block(name) {
            self.line();
        } else if matches!(name, "td" | "th") && opens {
            self.characters(" ");
        }
        match (opens, name) {
            (true, "script") => TokenSinkResult::RawData(RawKind::ScriptData),
            (true, "style" | "xmp" | "iframe" | "noembed" | "noframes") => {
                TokenSinkResult::RawData(RawKind::Rawtext)
            }
            (true, "title" | "textarea") => TokenSinkResult::RawData(RawKind::Rcdata),
            (true, "plaintext") => TokenSinkResult::Plaintext,
            _ => TokenSinkResult::Continue,
        }
    }
}

impl TokenSink for Text {
    type Handle = ();

    fn process_token(&self, token: Token, _line: u64) -> TokenSinkResult<()> {
        match token {
            Token::CharacterTokens(text) => self.characters(&text),
            Token::TagToken(tag) => return self.tag(&tag),
            _ => {}
        }
        TokenSinkResult::Continue
    }
}

/// Elements that begin and end a line (HTML standard, 15.3).
fn is_block(name: &str) -> bool {
    matches!(
        name,
        "address"
            | "article"
            | "aside"
            | "blockquote"
            | "body"
            | "br"
            | "caption"
            | "center"
            | "dd"
            | "details"
            | "dialog"
            | "dir"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "head"
            | "header"
            | "hgroup"
            | "hr"
            | "html"
            | "legend"
            | "li"
            | "main"
            | "menu"
            | "nav"
            | "ol"
            | "option"
            | "p"
            | "pre"
            | "search"
            | "section"
            | "select"
            | "summary"
            | "table"
            | "tbody"
            | "textarea"
            | "tfoot"
            | "thead"
            | "title"
            | "tr"
            | "ul"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_a_person_reads() {
        let table = [
            ("<p>One</p><p>two</p>", "One\ntwo"),
            ("<title>T &amp; U</title><body>a <b>bold</b>  word&nbsp;here", "T & U\na bold word\u{a0}here"),
            ("<script>var x = '<p>no</p>';</script>yes<style>p{}</style>", "yes"),
            ("<!-- no --><td>a<td>b", "a b"),
            ("<pre>\n  kept  as it\n is</pre>", "  kept  as it\n is"),
            ("a < b &#65; &unknown; <br/>c", "a < b A &unknown;\nc"),
            ("", ""),
        ];
        for (html, text) in table {
            assert_eq!(
                String::from_utf8(to_text(html.as_bytes())).unwrap().trim_start_matches('\n'),
                text,
                "{html}"
            );
        }
    }
}
