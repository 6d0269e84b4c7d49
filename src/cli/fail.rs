//! How the program says that it cannot go on: one line, and a hint where one is known.

use std::fmt;

/// An error for a person.
#[derive(Debug)]
pub struct Fail {
    message: String,
    hint: Option<String>,
}

impl Fail {
    /// Without a hint.
    pub fn new(message: impl Into<String>) -> Fail {
        Fail { message: message.into(), hint: None }
    }

    /// With the way out.
    pub fn hint(mut self, hint: impl Into<String>) -> Fail {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Fail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Fail {}

impl Fail {
    /// What is wrong, without the hint.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The way out, if one is known.
    pub fn way_out(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

/// An error as it is printed. Causes that an error already quotes are not said twice.
pub fn words(error: &anyhow::Error) -> String {
    // Whatever else fails to be written has a name in its message.
    if let Some(io) = error.downcast_ref::<std::io::Error>().filter(|_| error.chain().len() == 1) {
        return format!("cannot write to standard output: {io}");
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

/// True if `error` is a write to a pipe that nobody reads any more: `syntap show | head` is a success.
pub fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|e| {
        e.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    })
}
