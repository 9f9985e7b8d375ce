//! The page around the sections, and what keeps data from being taken for markup.

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("hover.js");

/// A part of the page with a heading of its own.
#[derive(Debug, Clone)]
pub struct Section<'a> {
    /// Name of the place, for links.
    pub anchor: &'a str,
    /// The heading, as text.
    pub title: &'a str,
    /// Markup; the section does not appear where there is none.
    pub body: String,
}

/// Text as it may stand in markup and in quoted attributes.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// What the colours of lines mean: names and indices of colours. A single line needs no legend.
pub fn legend(entries: &[(&str, usize)]) -> String {
    if entries.len() < 2 {
        return String::new();
    }
    let entry = |(name, color): &(&str, usize)| {
        format!("<li><i class=\"key c{color}\"></i>{}</li>", escape(name))
    };
    format!("<ul class=\"legend\">{}</ul>\n", entries.iter().map(entry).collect::<String>())
}

/// Words before the charts of a section.
pub fn note(text: &str) -> String {
    format!("<p class=\"note\">{}</p>\n", escape(text))
}

/// Charts side by side, as many as fit; none where there are none. `class` is `large` or `small`.
pub fn grid(class: &str, parts: &[String]) -> String {
    if parts.is_empty() {
        String::new()
    } else {
        format!("<div class=\"grid {class}\">\n{}</div>\n", parts.concat())
    }
}

/// A figure that counts, in large digits: a label above it, further words below. All are text.
pub fn tile(label: &str, value: &str, under: &[String]) -> String {
    let under: String =
        under.iter().map(|text| format!("<span class=\"under\">{}</span>", escape(text))).collect();
    format!(
        "<div class=\"tile\"><span>{}</span><b>{}</b>{under}</div>\n",
        escape(label),
        escape(value)
    )
}

/// Tiles side by side, as many as fit; none where there are none.
pub fn tiles(parts: &[String]) -> String {
    if parts.is_empty() {
        String::new()
    } else {
        format!("<div class=\"tiles\">\n{}</div>\n", parts.concat())
    }
}

/// A whole page.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// The title, as text.
    pub title: &'a str,
    /// Markup below the title.
    pub head: &'a str,
    /// What follows.
    pub sections: &'a [Section<'a>],
    /// Rules of style that this page has beyond the common ones.
    pub style: &'a str,
}

impl Page<'_> {
    /// The page as one HTML document.
    pub fn draw(&self) -> String {
        let Self { title, head, style, .. } = self;
        let sections: Vec<&Section> =
            self.sections.iter().filter(|section| !section.body.is_empty()).collect();
        let link = |section: &&Section| {
            format!("<a href=\"#{}\">{}</a>\n", escape(section.anchor), escape(section.title))
        };
        let whole = |section: &&Section| {
            format!(
                "<section id=\"{}\">\n<h2>{}</h2>\n{}</section>\n",
                escape(section.anchor),
                escape(section.title),
                section.body
            )
        };
        let links: String = sections.iter().map(link).collect();
        let navigation = if links.is_empty() { links } else { format!("<nav>\n{links}</nav>\n") };
        let parts: String = sections.iter().map(whole).collect();
        let title = escape(title);
        // The policy keeps the page from asking the network for anything, whatever is in it.
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; \
         style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}{style}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n{head}</header>\n\
         {navigation}<main>\n{parts}</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_text_is_markup() {
        assert_eq!(escape("<a b='c' d=\"e\">&"), "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;");
        assert!(!legend(&[("<b>", 0), ("c", 1)]).contains("<b>"));
        assert!(!tile("<b1>", "<b2>", &["<b3>".to_owned()]).contains("<b1>"));
        assert_eq!(tile("<", ">", &["&".to_owned()]).matches("&amp;").count(), 1);
    }

    #[test]
    fn empty_sections_do_not_appear() {
        let section =
            |anchor, body: &str| Section { anchor, title: "Title", body: body.to_owned() };
        let sections = [section("here", "words"), section("nowhere", "")];
        let page = Page { title: "<a>", head: "", sections: &sections, style: ".own {}\n" }.draw();
        assert!(page.contains("<h1>&lt;a&gt;</h1>") && page.contains(".own {}\n</style>"));
        assert!(
            page.contains("id=\"here\"")
                && page.contains("href=\"#here\"")
                && !page.contains("nowhere")
        );
    }
}
