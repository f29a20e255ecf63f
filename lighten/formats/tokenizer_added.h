// Added tokens: texts that are one token wherever they stand ("<|im_start|>").
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace lighten::formats {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool single_word = false;  ///< only where no letter or digit stands beside it
  bool lstrip = false;       ///< takes the spaces before it
  bool rstrip = false;       ///< takes the spaces behind it
  bool normalized = true;    ///< looked for in the normalized text
  bool special = false;      ///< left out when decoding without special tokens
};

/// Finds added tokens in a text: the leftmost, and of those the longest. Time: text times the longest token at worst.
class AddedTokenMatcher {
 public:
  /// `index` is handed back by pieces(); an empty pattern or one that is there already is passed over.
  void add(std::string_view pattern, int32_t index);
  bool empty() const { return nodes_.size() == 1; }

  /// Calls gap(start, end) for what lies between tokens and token(index) for tokens, in order.
  /// `skip(index)`: true for tokens that are not to be recognised.
  template <typename Skip, typename Gap, typename Token>
  void pieces(std::string_view text, const std::vector<AddedToken>& tokens, Skip&& skip, Gap&& gap, Token&& token) const {
    size_t done = 0, at = 0;
    for (int32_t index = 0; find(text, at, index);) {
      const AddedToken& found = tokens[index];
      size_t start = at;
      at += match_length(text, at, index);
      size_t end = at;
      if (skip(index) || (found.single_word && within_word(text, start, end))) continue;
      if (found.lstrip) start = spaces_before(text, start, done);
      if (found.rstrip) end = spaces_after(text, end);
      if (done < start) gap(done, start);
      token(index);
      done = end;  // the search goes on at `at`: in the reference, too, a token may lie within the spaces that this one took
    }
    if (done < text.size()) gap(done, text.size());
  }

 private:
  struct Node {
    char byte = 0;
    int32_t index = -1;  // of the token that ends here
    uint32_t child = 0, sibling = 0;
  };
  /// Moves `at` to the next token; false if there is none.
  bool find(std::string_view text, size_t& at, int32_t& index) const;
  size_t match_length(std::string_view text, size_t at, int32_t& index) const;
  static bool within_word(std::string_view text, size_t start, size_t end);
  static size_t spaces_before(std::string_view text, size_t start, size_t limit);
  static size_t spaces_after(std::string_view text, size_t end);

  std::vector<Node> nodes_ = std::vector<Node>(1);
  bool first_[256] = {};
};

}  // namespace lighten::formats
