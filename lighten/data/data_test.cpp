#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <set>

#include "lighten/base/error.h"
#include "lighten/data/markup.h"
#include "lighten/data/packages.h"
#include "lighten/data/prose.h"
#include "lighten/data/sha256.h"

namespace lighten {
namespace {

/// A cache of its own for tests that create files in it.
class DataCache : public testing::Test {
 protected:
  void SetUp() override {
    if (const char* before = std::getenv("LIGHTEN_DATA")) before_ = before;
    folder_ = fs::temp_directory_path() / fmt::format("lighten-data-test-{}", ::getpid());
    fs::create_directories(folder_);
    ::setenv("LIGHTEN_DATA", folder_.c_str(), 1);
  }
  void TearDown() override {
    before_.empty() ? ::unsetenv("LIGHTEN_DATA") : ::setenv("LIGHTEN_DATA", before_.c_str(), 1);
    fs::remove_all(folder_);
  }
  fs::path folder_;
  std::string before_;
};

TEST(Sha256, EqualsThePublishedVectors) {
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, DoesNotDependOnHowTheBytesArrive) {
  const std::string text(1000, 'x');
  Sha256 hash;
  for (size_t i = 0; i < text.size(); i += 37) {
    const std::string piece = text.substr(i, 37);
    hash.update(std::as_bytes(std::span(piece.data(), piece.size())));
  }
  EXPECT_EQ(hash.finish(), sha256(text));
}

TEST(Markup, HtmlKeepsParagraphsAndDropsCodeTablesAndNavigation) {
  const Paragraphs got = paragraphs_of_html(
      "<html><head><title>T</title></head><body><nav><p>menu</p></nav><h1>Head</h1><p class='a>b'>One "
      "<code>two</code>&nbsp;&amp; "
      "three&#8212;four.</p><pre><p>code</p></pre><table><tr><td><p>cell</p></td></tr></table><!-- <p>no</p> "
      "--><ul><li><p>Item</p>tail</li></ul>"
      "<script>if (a < b) '<p>x</p>'</script><p>Last<br/>line</body>");
  EXPECT_EQ(got, (Paragraphs{"One two & three\u2014four.", "Item", "Last line"}));
}

TEST(Markup, HtmlThatEndsInTheMiddleOfATagIsReadToItsEnd) {
  EXPECT_EQ(paragraphs_of_html("<p>Text <b"), (Paragraphs{"Text"}));
  EXPECT_EQ(paragraphs_of_html("<p>a<!-- never closed"), (Paragraphs{"a"}));
  EXPECT_TRUE(paragraphs_of_html("<pre><p>never closed").empty());
  EXPECT_EQ(paragraphs_of_html("<p>a &unknown; & &#x110000; b"), (Paragraphs{"a &unknown; & b"}));
}

TEST(Markup, PodResolvesItsCodes) {
  const Paragraphs got = paragraphs_of_pod(
      "not pod\n\n=head1 NAME\n\nSee L<the manual|perlsec>, L<perlvar/\"Error\">, B<I<very> bold> and C<< a->b >>;\nE<lt>tag "
      "E<eacute>X<index>.\n\n    verbatim\n\n=begin "
      "html\n\nhidden\n\n=end html\n\nAfter.\n\n=cut\n\nmy $code;\n");
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0], "See the manual, Error in perlvar, very bold and a->b; <tag \u00e9.");
  EXPECT_EQ(got[1], "After.");
}

TEST(Markup, ManPagesLoseFontsEscapesAndSynopses) {
  const Paragraphs got = paragraphs_of_man(
      ".TH x 3\n.SH NAME\nx \\- name\n.SH SYNOPSIS\nint x(void);\n.SH DESCRIPTION\nThe\n.BR x ()\nfunction \\fIreturns\\fP a "
      "value\\(emalways.\n.PP\nSecond\\-part \\(aqq\\(aq.\n.nf\ncode "
      "here\n.fi\n.TP\n.B \\-a\nAll \\*(lqof\\*(rq it. \\\" comment\n.SH SEE ALSO\n.BR y (3)\n");
  EXPECT_EQ(got, (Paragraphs{"The x() function returns a value\u2014always.", "Second-part 'q'.", "All \u201cof\u201d it."}));
}

TEST(Markup, OsisLosesNotesTitlesAndWordTags) {
  const Paragraphs got = paragraphs_of_osis(
      "<div type=\"book\"/><title>Genesis</title><div sID=\"a\" type=\"x-p\"/><w lemma=\"x\">In</w> the<note "
      "placement=\"foot\">or: a</note> beginning. <div eID=\"a\" "
      "type=\"x-p\"/>Next.");
  EXPECT_EQ(got, (Paragraphs{"In the beginning.", "Next."}));
}

TEST(Markup, ProseIsToldFromCodeAndLists) {
  EXPECT_TRUE(
      is_prose("This function returns the number of bytes that were written to the buffer, which may be less than was asked "
               "for when the disk is full."));
  EXPECT_FALSE(is_prose("Too short."));
  EXPECT_FALSE(
      is_prose("int main(int argc, char** argv) { for (int i = 0; i < argc; ++i) { printf(\"%s\\n\", argv[i]); } return 0; } "
               "/* and more of the same kind */ ."));
  EXPECT_FALSE(
      is_prose("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
               "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa."));
}

std::vector<Document> sample_documents() {
  std::vector<Document> documents;
  for (int i = 0; i < 40; ++i) {
    Document document{fmt::format("{}: {}", i % 2 ? "odd" : "even", i), {"shared paragraph"}};
    for (int j = 0; j < 20; ++j)
      document.paragraphs.push_back(fmt::format("paragraph {} of document {} {}", j, i, std::string(60, 'x')));
    documents.push_back(std::move(document));
  }
  return documents;
}

TEST(Prose, MixKeepsItsLimitsAndIsDeterministic) {
  std::vector<std::string> seen, again;
  const Mixture a = mix(sample_documents(), {{"odd", 3000, 600}}, seen, 100);
  const Mixture b = mix(sample_documents(), {{"odd", 3000, 600}}, again, 100);
  EXPECT_EQ(a.text, b.text);
  EXPECT_GE(a.text.size(), 3000u);
  EXPECT_LT(a.text.size(), 3000u + 700u);
  for (const std::string& name : a.documents) EXPECT_EQ(name.substr(0, 3), "odd");
}

TEST(Prose, NoParagraphStandsTwiceOrInBothTexts) {
  std::vector<std::string> seen;
  const Mixture test = mix(sample_documents(), {{"odd", 5000, 1000}}, seen, 100);
  const Mixture calibration = mix(sample_documents(), {{"even", 9000, 1000}}, seen, 100);
  std::multiset<std::string> paragraphs;
  for (const Mixture* mixture : {&test, &calibration})
    for (size_t at = 0; at < mixture->text.size();) {
      const size_t end = mixture->text.find("\n\n", at);
      paragraphs.insert(mixture->text.substr(at, end - at));
      at = end + 2;
    }
  EXPECT_EQ(paragraphs.count("shared paragraph"), 1u);
  for (const std::string& paragraph : paragraphs) EXPECT_EQ(paragraphs.count(paragraph), 1u);
}

TEST(Prose, TheFetchedTextsShareNoParagraphAndAreLongEnough) {
  if (!data_present("prose")) GTEST_SKIP() << "prose is not in the cache (`lighten data get prose`)";
  const fs::path folder = data_path("prose", false);
  if (!fs::exists(folder / "source.json")) GTEST_SKIP() << "a user's own text";
  std::multiset<std::string> paragraphs;
  for (const char* name : {"calibration.txt", "test.txt", "far.txt", "calibration_far.txt"}) {
    const std::string text = read_file(folder / name);
    EXPECT_GE(text.size(), 250000u) << name;
    for (size_t at = 0; at < text.size();) {
      const size_t end = text.find("\n\n", at);
      paragraphs.insert(text.substr(at, end - at));
      at = end + 2;
    }
  }
  EXPECT_GT(paragraphs.size(), 5000u);
  for (const std::string& paragraph : paragraphs) ASSERT_EQ(paragraphs.count(paragraph), 1u) << paragraph;
  EXPECT_GT(fs::file_size(folder / "calibration.txt"), 1000000u);
}

TEST_F(DataCache, UnknownIdIsAnsweredWithTheNearestOne) {
  try {
    data_path("smollm2-135", false);
    FAIL();
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("did you mean 'smollm2-135m'?"), std::string::npos) << error.what();
    EXPECT_EQ(error.exit_code(), 2);
  }
}

TEST_F(DataCache, AnAbsentSetIsNotFetchedUnlessAsked) {
  EXPECT_FALSE(data_present("prose"));
  EXPECT_THROW(data_path("prose", false), FileError);
}

TEST_F(DataCache, AFileOfTheWrongSizeIsNotTakenForTheModel) {
  write_file(
      [&] {
        fs::create_directories(folder_ / "models/smollm2-135m");
        return folder_ / "models/smollm2-135m/SmolLM2-135M-Instruct.Q4_1.gguf";
      }(),
      "half");
  EXPECT_FALSE(data_present("smollm2-135m"));
}

TEST_F(DataCache, OnesOwnTextsAreUsedAsTheyAre) {
  fs::create_directories(folder_ / "text/prose");
  for (const char* file : {"calibration.txt", "test.txt", "calibration_far.txt", "far.txt", "source.json"}) {
    EXPECT_FALSE(data_present("prose")) << file << " is missing";
    write_file(folder_ / "text/prose" / file, "mine");
  }
  EXPECT_EQ(data_path("prose"), folder_ / "text/prose");
}

TEST_F(DataCache, AModelIsAPathOrAnId) {
  EXPECT_EQ(resolve_model(folder_.string()), folder_);
  EXPECT_THROW(resolve_model("prose"), OptionError);
  try {
    resolve_model("gemma3-270m", /*fetch=*/false);
    FAIL();
  } catch (const FileError& error) {
    EXPECT_NE(std::string(error.what()).find("lighten data get gemma3-270m"), std::string::npos) << error.what();
  }
  EXPECT_THROW(resolve_model("some/folder/that/is/not"), FileError);
  try {
    resolve_model("gemma3-270");
    FAIL();
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("'gemma3-270m'"), std::string::npos);
  }
}

}  // namespace
}  // namespace lighten
