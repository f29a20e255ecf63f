#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "lighten/runtime/chat.h"
#include "lighten/runtime/scripted_model_test.h"
#include "lighten/runtime/stop_filter.h"

namespace lighten {
namespace {

using test::ScriptedModel;

const std::vector<std::string> kPieces{"a", "b", "c", "EN", "D", "END of", "\n", "<|end|>", "\xe2\x82", "\xac", " ", "\xe2"};

struct Said {
  GenerateResult result;
  std::vector<std::string> pieces;
};

Said generate_script(ScriptedModel& model, const std::vector<std::string>& script, const GenerateOptions& options,
                     int64_t capacity = 0) {
  model.say(script);
  const auto cache = model.new_cache(capacity);
  Said said;
  const std::vector<int32_t> prompt{0, 1};
  said.result = generate(model, *cache, prompt, options, [&](const std::string& text) {
    said.pieces.push_back(text);
    return true;
  });
  return said;
}

TEST(Generate, EndsAfterTheMostTokensAllowed) {
  ScriptedModel model(kPieces);
  const Said said = generate_script(model, {"a", "b", "c"}, {.max_tokens = 3});
  EXPECT_EQ(said.result.text, "abc");
  EXPECT_EQ(said.result.tokens, (std::vector<int32_t>{0, 1, 2}));
  EXPECT_EQ(said.result.reason, "length");
  EXPECT_EQ(said.result.prompt_tokens, 2);
  EXPECT_EQ(model.fed(), (std::vector<int32_t>{0, 1, 0, 1})) << "the last token's logits are not needed";
  EXPECT_EQ(generate_script(model, {"a"}, {.max_tokens = 0}).result.text, "");
}

TEST(Generate, EndsOnTheModelsEndTokenAndDoesNotShowIt) {
  ScriptedModel model(kPieces);
  model.settings().end_tokens = {7};
  const Said said = generate_script(model, {"a", "<|end|>"}, {.max_tokens = 10});
  EXPECT_EQ(said.result.text, "a");
  EXPECT_EQ(said.result.tokens, std::vector<int32_t>{0});
  EXPECT_EQ(said.result.reason, "stop");
  EXPECT_EQ(generate_script(model, {"a", "<|end|>", "b"}, {.max_tokens = 3, .ignore_end = true}).result.text, "ab");
}

TEST(Generate, AStopStringMayBeASpecialTokenThatNeverShows) {
  ScriptedModel model(kPieces);
  const Said said = generate_script(model, {"a", "<|end|>"}, {.max_tokens = 10, .stop = {"<|end|>"}});
  EXPECT_EQ(said.result.text, "a");
  EXPECT_EQ(said.result.reason, "stop");
}

TEST(Generate, StopStringsAcrossTokensAreCutAndNeverShown) {
  ScriptedModel model(kPieces);
  const Said said = generate_script(model, {"a", "EN", "b", "EN", "D", "c"}, {.max_tokens = 6, .stop = {"END"}});
  EXPECT_EQ(said.result.text, "aENb");
  EXPECT_EQ(said.pieces, (std::vector<std::string>{"a", "ENb"})) << "EN waits until it is known not to be END";
  EXPECT_EQ(said.result.reason, "stop");
  EXPECT_EQ(said.result.tokens.size(), 5u);
}

TEST(Generate, WhatWasHeldBackIsShownWhenNothingStops) {
  ScriptedModel model(kPieces);
  const Said said = generate_script(model, {"a", "EN"}, {.max_tokens = 2, .stop = {"END"}});
  EXPECT_EQ(said.result.text, "aEN");
  EXPECT_EQ(said.result.reason, "length");
}

TEST(Generate, NeverShowsHalfACharacter) {
  ScriptedModel model(kPieces);
  const Said euro = generate_script(model, {"a", "\xe2\x82", "\xac", "b"}, {.max_tokens = 4});
  EXPECT_EQ(euro.pieces, (std::vector<std::string>{"a", "\u20ac", "b"}));
  const Said cut = generate_script(model, {"a", "\xe2\x82"}, {.max_tokens = 2});
  EXPECT_EQ(cut.result.text, "a\ufffd");
}

TEST(Generate, EndsWhenTheContextIsFullOrTheListenerHadEnough) {
  ScriptedModel model(kPieces);
  const Said full = generate_script(model, {"a", "b", "c", "a"}, {.max_tokens = 10}, 4);
  EXPECT_EQ(full.result.text, "abc");  // two of the prompt, a and b in the cache, c after it
  EXPECT_EQ(full.result.reason, "length");

  model.say({"a", "b", "c"});
  const auto cache = model.new_cache(0);
  const std::vector<int32_t> prompt{0};
  int calls = 0;
  const GenerateResult result =
      generate(model, *cache, prompt, {.max_tokens = 3}, [&](const std::string&) { return ++calls < 2; });
  EXPECT_EQ(calls, 2);
  EXPECT_EQ(result.text, "ab");
  EXPECT_THROW(generate(model, *cache, {}, {}), OptionError);
}

TEST(Generate, APromptThatDoesNotFitIsRefusedBeforeAnyWork) {
  ScriptedModel model(kPieces);
  const auto cache = model.new_cache(600);
  const std::vector<int32_t> before(100), prompt(501);
  model.forward(*cache, before, nullptr, 0);
  model.forget_fed();
  try {
    generate(model, *cache, prompt, {});
    FAIL() << "601 tokens in a context of 600";
  } catch (const OptionError& error) {
    EXPECT_NE(std::string(error.what()).find("601 tokens, but the context has room for 600"), std::string::npos)
        << error.what();
  }
  EXPECT_TRUE(model.fed().empty());
  EXPECT_EQ(cache->length(), 100);
}

TEST(StopFilter, ComesOutTheSameHoweverTheTextIsCut) {
  const std::string text = "one two aab aaab END tail";
  const std::vector<std::string> stops{"aaab", "END", ""};
  for (size_t step = 1; step <= text.size(); ++step) {
    runtime::StopFilter filter(stops);
    std::string shown;
    for (size_t i = 0; i < text.size(); i += step) shown += filter.add(text.substr(i, step));
    shown += filter.finish();
    EXPECT_EQ(shown, "one two aab ") << "pieces of " << step;
    EXPECT_TRUE(filter.stopped());
  }
}

// ---- conversations

const std::vector<std::string> kChatPieces{"<|im_start|>", "<|im_end|>", "user", "assistant", "system", "\n",
                                           "hi",           "yes",        "no",   "what",      "?",      "be kind"};
const char* kTemplate =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

std::string all_text(const ScriptedModel& model) { return model.tokenizer()->decode(model.fed(), false); }

TEST(Conversation, AppliesTheTemplateAndComputesOnlyWhatIsNew) {
  ScriptedModel model(kChatPieces, kTemplate);
  Conversation conversation(model, {.max_tokens = 5});
  model.say({"yes", "<|im_end|>"});
  EXPECT_EQ(conversation.answer("hi").text, "yes");
  EXPECT_EQ(all_text(model), "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyes");
  model.forget_fed();
  model.say({"no", "<|im_end|>"});
  EXPECT_EQ(conversation.answer("what?").text, "no");
  EXPECT_EQ(all_text(model), "<|im_end|>\n<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\nno")
      << "the first turn came from the cache";
  ASSERT_EQ(conversation.messages().size(), 4u);
  EXPECT_EQ(conversation.messages()[3].content, "no");

  conversation.reset();
  model.forget_fed();
  model.say({"yes", "<|im_end|>"});
  conversation.answer("what?");
  EXPECT_EQ(all_text(model), "what?<|im_end|>\n<|im_start|>assistant\nyes") << "only the common beginning is reused";
}

TEST(Conversation, SystemMessageStandsFirstAndOldTurnsAreDroppedWhenTheContextIsFull) {
  ScriptedModel model(kChatPieces, kTemplate);
  Conversation conversation(model, {.system = "be kind", .max_tokens = 4, .context = 36});
  for (int turn = 0; turn < 5; ++turn) {
    model.say({"yes", "<|im_end|>"});
    EXPECT_EQ(conversation.answer("hi").text, "yes");
    EXPECT_LE(conversation.cached_tokens(), 36);
  }
  EXPECT_EQ(conversation.messages().front().content, "be kind");
  EXPECT_LT(conversation.messages().size(), 11u);
  EXPECT_EQ(conversation.messages()[1].role, "user");
}

TEST(Conversation, RawTextIsContinuedAsItIs) {
  ScriptedModel model(kChatPieces, kTemplate);
  Conversation conversation(model, {.raw = true, .max_tokens = 1});
  model.say({"yes"});
  conversation.answer("hi");
  model.say({"no"});
  conversation.answer("what");
  EXPECT_EQ(all_text(model), "hiyeswhat");
}

TEST(Conversation, AMessageThatDoesNotFitLosesNothing) {
  ScriptedModel model(kChatPieces, kTemplate);
  Conversation conversation(model, {.max_tokens = 4, .context = 36});
  model.say({"yes", "<|im_end|>"});
  conversation.answer("hi");
  std::string long_message;
  for (int i = 0; i < 40; ++i) long_message += "what";
  model.forget_fed();
  EXPECT_THROW(conversation.answer(long_message), OptionError);
  EXPECT_TRUE(model.fed().empty());
  ASSERT_EQ(conversation.messages().size(), 2u);
  model.say({"no", "<|im_end|>"});
  EXPECT_EQ(conversation.answer("what?").text, "no");
  EXPECT_EQ(all_text(model), "<|im_end|>\n<|im_start|>user\nwhat?<|im_end|>\n<|im_start|>assistant\nno")
      << "the first turn is still in the cache";
}

TEST(Conversation, TellsAnEmptyPromptFromOneOfUnknownCharacters) {
  ScriptedModel model(kChatPieces);
  Conversation conversation(model, {.max_tokens = 1});
  const auto refusal = [&](const std::string& prompt) -> std::string {
    try {
      conversation.answer(prompt);
    } catch (const OptionError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal("").find("the prompt is empty"), std::string::npos);
  EXPECT_NE(refusal("~~").find("knows no character of the prompt \"~~\""), std::string::npos) << refusal("~~");
}

// ---- the chat on standard input

struct Chat {
  std::string out;
  Json report;
};

Chat chat(ScriptedModel& model, const std::string& lines, RunOptions options) {
  const fs::path report = fs::temp_directory_path() / fmt::format("lighten-chat-{}.json", ::getpid());
  options.json = report.string();
  Conversation conversation(model, options);
  std::istringstream in(lines);
  std::ostringstream out;
  EXPECT_EQ(converse(conversation, options, Json::object(), in, out), 0);
  Chat result{out.str(), Json::parse(read_file(report))};
  fs::remove(report);
  return result;
}

TEST(Chat, GoesOnAfterALineThatDoesNotFitAndReadsWindowsLines) {
  ScriptedModel model(kChatPieces, kTemplate);
  model.say({"yes", "<|im_end|>", "no", "<|im_end|>"});
  std::string long_line;
  for (int i = 0; i < 40; ++i) long_line += "hi";
  const Chat said = chat(model, "hi\r\n" + long_line + "\n\r\nwhat?\n/exit\r\nhi\n", {.max_tokens = 4, .context = 36});
  EXPECT_EQ(said.out, "yes\nno\n");
  ASSERT_EQ(said.report["turns"].size(), 3u);
  EXPECT_EQ(said.report["turns"][0]["message"], "hi");
  EXPECT_EQ(said.report["turns"][0]["text"], "yes");
  EXPECT_TRUE(said.report["turns"][1].contains("error"));
  EXPECT_EQ(said.report["turns"][2]["text"], "no");
}

TEST(Chat, AnOutputThatTakesNoMoreIsAnError) {
  ScriptedModel model(kChatPieces, kTemplate);
  model.say({"yes", "no", "yes"});
  std::ofstream full("/dev/full");
  std::istringstream in("hi\n");
  for (const bool one : {true, false}) {
    RunOptions options{.max_tokens = 1};
    if (one) options.prompt = "hi";
    Conversation conversation(model, options);
    EXPECT_THROW(converse(conversation, options, Json::object(), in, full), FileError);
    full.clear();
  }
}

// ---- a file of prompts

fs::path prompts_file(const std::string& name, const std::string& text) {
  const fs::path file = fs::temp_directory_path() / fmt::format("lighten-prompts-{}-{}", ::getpid(), name);
  write_file(file, text);
  return file;
}

TEST(Prompts, AreLinesOrJsonLines) {
  EXPECT_EQ(read_prompts(prompts_file("a.txt", "hi\r\n\n{\"prompt\": 1}\nwhat?")),
            (std::vector<std::string>{"hi", "{\"prompt\": 1}", "what?"}));
  EXPECT_EQ(read_prompts(prompts_file("a.jsonl", "\"two\\nlines\"\n\n{\"prompt\": \"hi\", \"id\": 7}\n")),
            (std::vector<std::string>{"two\nlines", "hi"}));
}

TEST(Prompts, BadFilesAreRefusedWithTheLine) {
  const auto refusal = [](const std::string& name, const std::string& text) -> std::string {
    try {
      read_prompts(prompts_file(name, text));
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(refusal("empty.txt", "\n\n").find("empty.txt is empty"), std::string::npos);
  EXPECT_NE(refusal("binary.txt", std::string("hi\n\0", 4)).find("binary.txt is binary"), std::string::npos);
  for (const char* line : {"{\"text\": \"hi\"}", "{\"prompt\": 3}", "hi", "[\"hi\"]"})
    EXPECT_NE(refusal("bad.jsonl", std::string("\"fine\"\n") + line).find("bad.jsonl: line 2 is neither"), std::string::npos)
        << line;
}

TEST(Prompts, EachIsAnsweredAsAConversationOfItsOwn) {
  ScriptedModel model(kChatPieces, kTemplate);
  model.say({"yes", "<|im_end|>", "no", "yes", "<|im_end|>"});
  RunOptions options{.max_tokens = 4, .prompts = prompts_file("chat.txt", "hi\nwhat?\n").string(), .parallel = 1};
  std::ostringstream out;
  EXPECT_EQ(answer_prompts(model, options, Json::object(), out), 0);
  std::istringstream lines(out.str());
  std::string first, second;
  std::getline(lines, first);
  std::getline(lines, second);
  EXPECT_EQ(Json::parse(first)["text"], "yes");
  EXPECT_EQ(Json::parse(first)["reason"], "stop");
  EXPECT_EQ(Json::parse(second)["index"], 1);
  EXPECT_EQ(Json::parse(second)["prompt"], "what?");
  EXPECT_EQ(Json::parse(second)["text"], "noyes");
}

}  // namespace
}  // namespace lighten
