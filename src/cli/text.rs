//! Text for people: widths and colours.

pub use crate::report::{fact_text, packet_line};

/// How to print.
pub struct Style {
    colour: bool,
    width: usize,
}

impl Style {
    /// Colour on a terminal unless `NO_COLOR` is set; the terminal's width, or 100 columns into a file.
    pub fn of_stdout(terminal: bool) -> Style {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
        Style { colour, width: width.unwrap_or(100).clamp(40, 160) }
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    fn code(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Emphasised.
    pub fn bold(&self, text: &str) -> String {
        self.code("1", text)
    }

    /// In the background.
    pub fn dim(&self, text: &str) -> String {
        self.code("2", text)
    }

    /// A severity in its colour.
    pub fn severity(&self, severity: &str) -> String {
        let code = match severity {
            "error" => "31",
            "warning" => "33",
            _ => "36",
        };
        self.code(code, severity)
    }
}

/// Words of `text` in lines of at most `width` columns; a longer word stands alone.
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        // A name from outside may hold what steers a terminal.
        line.extend(word.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
    }
    if !line.is_empty() {
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::wrap;

    #[test]
    fn words_are_wrapped_and_none_is_lost() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("incomprehensible x", 5), ["incomprehensible", "x"]);
        assert!(wrap("", 5).is_empty());
    }
}
