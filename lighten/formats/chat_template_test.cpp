#include "lighten/formats/chat_template.h"

#include <gtest/gtest.h>

#include "lighten/base/error.h"

namespace lighten {
namespace {

// As in SmolLM2-135M-Instruct; its line breaks are in the literals.
const std::string kSmolLm2 =
    R"({% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system
You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>
' }}{% endif %}{{'<|im_start|>' + message['role'] + '
' + message['content'] + '<|im_end|>' + '
'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant
' }}{% endif %})";

TEST(ChatTemplate, SmolLm2PutsItsOwnSystemMessageFirst) {
  EXPECT_EQ(detect_chat_format(kSmolLm2), ChatFormat::chatml);
  EXPECT_EQ(render_chat(kSmolLm2, {{"user", "Hi"}}),
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
}

TEST(ChatTemplate, ASystemMessageOfTheConversationReplacesIt) {
  EXPECT_EQ(render_chat(kSmolLm2, {{"system", "Be brief."}, {"user", " a "}, {"assistant", "b"}, {"user", "c"}}, false),
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n a <|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
            "<|im_start|>user\nc<|im_end|>\n");
  EXPECT_EQ(render_chat(kSmolLm2, {}), "<|im_start|>assistant\n");
}

TEST(ChatTemplate, EscapedLineBreaksAndConcatenatedMessagesInTheTemplate) {
  const std::string qwen = R"({{- '<|im_start|>system\n' + messages[0].content }}{%- else %}
    {{- '<|im_start|>system\nYou\'re Qwen.<|im_end|>\n' }}{{- '<|im_start|>' + message.role }})";
  EXPECT_EQ(render_chat(qwen, {{"user", "x"}}, false),
            "<|im_start|>system\nYou're Qwen.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n");
  EXPECT_EQ(render_chat("{{ '<|im_start|>' + message.role }}", {{"user", "x"}}, false), "<|im_start|>user\nx<|im_end|>\n");
}

TEST(ChatTemplate, Llama3AndLlama2AndGemma) {
  EXPECT_EQ(render_chat("{{ bos_token }}<|start_header_id|>", {{"user", " x\n"}}),
            "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nx<|eot_id|><|start_header_id|>assistant<|end_header_"
            "id|>\n\n");
  EXPECT_EQ(render_chat("[INST]", {{"system", "S"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}}),
            "<s>[INST] <<SYS>>\nS\n<</SYS>>\n\na [/INST] b </s><s>[INST] c [/INST]");
  EXPECT_EQ(render_chat("{{ bos_token }}<start_of_turn>", {{"system", "S"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}}),
            "<bos><start_of_turn>user\nS\n\na<end_of_turn>\n<start_of_turn>model\nb<end_of_turn>\n<start_of_turn>user\nc<end_"
            "of_turn>\n"
            "<start_of_turn>model\n");
}

TEST(ChatTemplate, AnUnknownTemplateIsRefused) {
  EXPECT_EQ(detect_chat_format(""), ChatFormat::none);
  EXPECT_THROW(render_chat("{{ messages }}", {{"user", "x"}}), FormatError);
}

TEST(ChatTemplate, StopStrings) {
  EXPECT_EQ(chat_stop_strings(ChatFormat::chatml), std::vector<std::string>{"<|im_end|>"});
  EXPECT_TRUE(chat_stop_strings(ChatFormat::none).empty());
}

}  // namespace
}  // namespace lighten
