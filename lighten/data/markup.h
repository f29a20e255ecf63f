// Documentation markup -> clean paragraphs of prose.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace lighten {

/// Paragraphs without markup, white space collapsed, in order of the document. None of the readers throws: damaged markup gives
/// less text.
using Paragraphs = std::vector<std::string>;

/// The text of <p> elements outside of <pre>, tables, navigation, scripts; entities decoded.
Paragraphs paragraphs_of_html(std::string_view html);
/// Ordinary paragraphs of Perl's POD (verbatim blocks and commands are left out; B<>, C<>, L<text|target> and E<> resolved).
Paragraphs paragraphs_of_pod(std::string_view pod);
/// Filled paragraphs of a man page (no-fill blocks, tables and synopses are left out; fonts and escapes resolved).
Paragraphs paragraphs_of_man(std::string_view roff);
/// OSIS as SWORD modules store it: verses joined to the paragraphs of the edition, notes and titles left out.
Paragraphs paragraphs_of_osis(std::string_view osis);

/// `text` with "&name;" and "&#NN;" replaced by what they stand for; unknown ones stay.
std::string decode_entities(std::string_view text);

/// True for a paragraph that reads as a sentence or more of English prose: long enough, mostly letters, no code.
bool is_prose(std::string_view paragraph, size_t least_bytes = 120);

}  // namespace lighten
