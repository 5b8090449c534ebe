//! Asking before harm is done.

use std::io::{self, BufRead, IsTerminal};

use crate::cli::say;
use crate::id::NodeName;
use crate::shell::exit::ExitError;

/// The longest answer that is read, in bytes.
const ANSWER_LEN_MAX: u64 = 1_000;

/// Has the operator name the node `known` before anything is done to its data: by `yes`, the value
/// of `--yes`, or on the terminal. If the name is not known, the operator's is taken.
///
/// # Errors
/// If another name is given, or nobody can be asked.
pub(super) fn name_of_node(
    known: Option<&NodeName>,
    yes: Option<&str>,
) -> Result<NodeName, ExitError> {
    let given = match yes {
        Some(name) => name.to_owned(),
        None => ask(known)?,
    };
    let given = given.trim();
    match known {
        Some(known) if known.as_str() == given => Ok(known.clone()),
        Some(known) => Err(ExitError::Usage(format!(
            "nothing was changed: the node is {known}, and {given:?} was given"
        ))),
        None => NodeName::new(given).map_err(|error| {
            ExitError::Usage(format!("nothing was changed: {given:?} is no node-name: {error}"))
        }),
    }
}

fn ask(known: Option<&NodeName>) -> Result<String, ExitError> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(ExitError::Usage(
            "nothing was changed: there is no terminal to ask on; \
             give the node's name with --yes NAME"
                .to_owned(),
        ));
    }
    say(&match known {
        Some(name) => format!("Type the node's name, {name}, to do it: "),
        None => "Type the node's name to do it: ".to_owned(),
    });
    let mut answer = String::new();
    let mut input = io::Read::take(stdin.lock(), ANSWER_LEN_MAX);
    let read = input.read_line(&mut answer);
    read.map_err(|error| ExitError::Environment(format!("cannot read the answer: {error}")))?;
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_the_node_confirms() {
        let alpha = NodeName::new("alpha").unwrap();
        assert_eq!(name_of_node(Some(&alpha), Some("alpha")), Ok(alpha.clone()));
        assert_eq!(name_of_node(None, Some(" alpha\n")), Ok(alpha.clone()));
        for wrong in ["", "y", "yes", "alph", "alpha2"] {
            let error = name_of_node(Some(&alpha), Some(wrong)).unwrap_err();
            assert_eq!(error.code(), 2, "{wrong}: {error}");
        }
        assert_eq!(name_of_node(None, Some("no name")).unwrap_err().code(), 2);
    }
}
