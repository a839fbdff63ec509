//! Lines of limited width, broken between words.

/// The width of text that does not go to a terminal.
pub(crate) const PIPED: usize = 80;

/// A word longer than this may be broken in the middle, if nothing else fits.
const LONGEST: usize = 24;

/// Breaks a text at spaces into lines of at most `width` characters. A word that is too long for a line is broken
/// after a comma, a slash or a plus sign, and only as a last resort anywhere else.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for line in text.lines() {
        let start = lines.len();
        let mut current = String::new();
        for word in line.split(' ') {
            let fits = length(&current) + usize::from(!current.is_empty()) + length(word) <= width;
            if fits {
                if !current.is_empty() {
                    current.push(' ');
                }
                current.push_str(word);
                continue;
            }
            if !current.is_empty() {
                lines.push(std::mem::take(&mut current));
            }
            for piece in pieces(word, width) {
                if length(&current) + length(piece) > width && !current.is_empty() {
                    lines.push(std::mem::take(&mut current));
                }
                current.push_str(piece);
            }
        }
        if !current.is_empty() || lines.len() == start {
            lines.push(current);
        }
    }
    lines
}

/// Wraps a paragraph, with an indent on each line but the first.
pub(crate) fn paragraph(text: &str, width: usize, indent: &str) -> String {
    let room = width.saturating_sub(length(indent)).max(1);
    let mut lines = wrap(text, room).into_iter();
    let mut whole = lines.next().unwrap_or_default();
    for line in lines {
        whole.push('\n');
        whole.push_str(indent);
        whole.push_str(&line);
    }
    whole.push('\n');
    whole
}

/// Cuts a text to a width, with a mark where it was cut.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if length(text) <= width {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    kept.push('…');
    kept
}

/// Returns the number of characters. The texts of this program contain no wide characters, because names are escaped.
pub(crate) fn length(text: &str) -> usize {
    text.chars().count()
}

/// Returns the parts between which a word may be broken.
fn pieces(word: &str, width: usize) -> Vec<&str> {
    let mut found = Vec::new();
    for piece in word.split_inclusive([',', '/', '+']) {
        let mut rest = piece;
        while length(rest) > width.max(1) {
            let end = rest.char_indices().nth(width.max(1)).map_or(rest.len(), |(at, _)| at);
            let (head, tail) = rest.split_at(end);
            found.push(head);
            rest = tail;
        }
        found.push(rest);
    }
    found
}

/// Returns the widths of columns so that all fit into `room`. Each column keeps its longest word, if that is possible.
/// Otherwise the columns with the longest words break them.
pub(crate) fn columns(texts: &[Vec<String>], room: usize) -> Vec<usize> {
    let count = texts.iter().map(Vec::len).max().unwrap_or(0);
    let over = |column: usize, measure: &dyn Fn(&str) -> usize| {
        let cells = texts.iter().filter_map(|row| row.get(column));
        cells.flat_map(|cell| cell.lines()).map(measure).max().unwrap_or(0)
    };
    let word = |line: &str| {
        let words = line.split(' ').flat_map(|word| word.split_inclusive([',', '/', '+']));
        words.map(length).max().unwrap_or(0).min(LONGEST)
    };
    let mut widths: Vec<_> = (0..count).map(|column| over(column, &length).max(1)).collect();
    let least: Vec<_> = (0..count).map(|column| over(column, &word).max(1)).collect();
    for least in [least, vec![1; count]] {
        while widths.iter().sum::<usize>() > room {
            let able = widths.iter().zip(&least).enumerate();
            let able = able.filter(|(_, (now, least))| now > least);
            let Some((widest, _)) = able.max_by_key(|(_, (now, _))| **now) else { break };
            if let Some(width) = widths.get_mut(widest) {
                *width -= 1;
            }
        }
    }
    spread(texts, room, widths)
}

/// Gives the room that broken lines leave free to the columns in which it saves most lines.
fn spread(texts: &[Vec<String>], room: usize, mut widths: Vec<usize>) -> Vec<usize> {
    // The number of lines in a column of this width, and the width that they use.
    let broken = |column: usize, width: usize| {
        let cells = texts.iter().filter_map(|row| row.get(column)).map(|cell| wrap(cell, width));
        cells.fold((0, 1), |(lines, used): (usize, usize), cell| {
            let longest = cell.iter().map(|line| length(line)).max().unwrap_or(0);
            (lines + cell.len(), used.max(longest))
        })
    };
    for _ in 0..widths.len() {
        let now: Vec<_> =
            widths.iter().enumerate().map(|(column, &width)| broken(column, width)).collect();
        widths = now.iter().map(|(_, used)| *used).collect();
        let free = room.saturating_sub(widths.iter().sum());
        let gain = |(column, (lines, used)): (usize, &(usize, usize))| {
            let (fewer, wider) = broken(column, used + free);
            (lines.saturating_sub(fewer), column, wider)
        };
        let best = now.iter().enumerate().map(gain).max_by_key(|(gain, _, _)| *gain);
        match best.filter(|(gain, _, _)| *gain > 0 && free > 0) {
            Some((_, column, wider)) => {
                if let Some(width) = widths.get_mut(column) {
                    *width = wider;
                }
            }
            None => break,
        }
    }
    widths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("cap_chown,cap_kill=ep", 12), ["cap_chown,", "cap_kill=ep"]);
        assert_eq!(wrap("a /usr/lib/x", 7), ["a", "/usr/", "lib/x"]);
        assert_eq!(wrap("abcdefgh", 3), ["abc", "def", "gh"]);
        assert_eq!(wrap("\n\na", 3), ["", "", "a"]);
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcd", 4), "abcd");
        assert_eq!(paragraph("one two three", 9, "  "), "one two\n  three\n");
    }

    #[test]
    fn columns_share_the_room() {
        let rows = [vec!["aaaa bbbb cccc".to_owned(), "1".to_owned()]];
        assert_eq!(columns(&rows, 20), [14, 1]);
        assert_eq!(columns(&rows, 10), [9, 1]);
        assert_eq!(columns(&rows, 3), [2, 1]);
    }
}
