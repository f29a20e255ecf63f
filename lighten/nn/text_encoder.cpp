// Texts to unit vectors: token ids, batches of like length, pooling.
#include <numeric>

#include "lighten/base/error.h"
#include "lighten/formats/json_fields.h"
#include "lighten/nn/bert.h"

namespace lighten {

TextEncoder load_text_encoder(const fs::path& folder) {
  TextEncoder encoder;
  encoder.bert = load_bert(folder);
  encoder.tokenizer = Tokenizer::from_file(folder / "tokenizer.json");
  for (const char* token : {"[CLS]", "[SEP]"})
    if (encoder.tokenizer->id(token) < 0)
      throw_error<FormatError>("{}: there is no token {}; a BERT's tokenizer has one", (folder / "tokenizer.json").string(),
                               token);
  if (encoder.tokenizer->size() > encoder.bert->config.vocab_size)
    throw_error<FormatError>("{}: the tokenizer has {} ids, the model only {}", folder.string(), encoder.tokenizer->size(),
                             encoder.bert->config.vocab_size);
  const fs::path sentence = folder / "sentence_bert_config.json";
  if (fs::exists(sentence)) {
    const Json json = formats::parse_json(read_file(sentence), sentence.string());
    encoder.max_tokens = formats::Fields(json, sentence.string()).integer("max_seq_length", 256);
  }
  encoder.max_tokens = std::clamp<int64_t>(encoder.max_tokens, 3, encoder.bert->config.positions);
  return encoder;
}

void save_text_encoder(const TextEncoder& encoder, const fs::path& source, const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(source)) {
    const std::string kind = entry.path().extension().string(), name = entry.path().filename().string();
    if (entry.is_regular_file() && (kind == ".json" || kind == ".txt") && !name.ends_with(".index.json"))
      fs::copy_file(entry.path(), folder / name, fs::copy_options::overwrite_existing);
  }
  save_tensors(folder / "model.safetensors", stored_parameters(encoder.bert), {{"format", "pt"}});
}

std::vector<int32_t> token_ids(const TextEncoder& encoder, std::string_view text) {
  // A token is at least one byte, and hardly ever longer than 20: what lies far beyond the cut is not looked at.
  const auto enough = static_cast<size_t>(encoder.max_tokens) * 40;
  std::string_view head = text.substr(0, enough);
  while (head.size() < text.size() && !head.empty() && head.back() != ' ') head.remove_suffix(1);  // whole words only
  if (head.empty()) head = text;
  std::vector<int32_t> ids = {encoder.tokenizer->id("[CLS]")};
  const std::vector<int32_t> inner = encoder.tokenizer->encode(head, /*special=*/false);
  const auto room = static_cast<size_t>(encoder.max_tokens - 2);
  ids.insert(ids.end(), inner.begin(), inner.begin() + static_cast<std::ptrdiff_t>(std::min(inner.size(), room)));
  ids.push_back(encoder.tokenizer->id("[SEP]"));
  return ids;
}

torch::Tensor embed(TextEncoder& encoder, std::span<const std::vector<int32_t>> rows) {
  std::vector<int64_t> lengths;
  for (const auto& row : rows) lengths.push_back(static_cast<int64_t>(row.size()));
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const torch::Tensor ids = torch::zeros({static_cast<int64_t>(rows.size()), longest}, torch::kInt64);
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy(rows[i].begin(), rows[i].end(), ids.data_ptr<int64_t>() + static_cast<int64_t>(i) * longest);
  const torch::Tensor hidden = encoder.bert->forward(ids, lengths);
  torch::Tensor pooled;
  if (encoder.pooling == Pooling::cls) {
    pooled = hidden.select(1, 0);
  } else {
    const torch::Tensor count = torch::tensor(lengths).unsqueeze(1);
    const torch::Tensor real = (torch::arange(longest) < count).to(hidden.dtype()).unsqueeze(2);
    pooled = (hidden * real).sum(1) / count.to(hidden.dtype());
  }
  return torch::nn::functional::normalize(pooled, torch::nn::functional::NormalizeFuncOptions().dim(1).eps(1e-12));
}

std::vector<std::vector<int64_t>> batches_by_length(const std::vector<int64_t>& lengths, int64_t batch_tokens) {
  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), 0);
  const auto length = [&](int64_t i) { return lengths[static_cast<size_t>(i)]; };
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
  std::vector<std::vector<int64_t>> batches;
  for (const int64_t i : order) {
    // The first row of a batch is its longest.
    if (batches.empty() || static_cast<int64_t>(batches.back().size() + 1) * length(batches.back().front()) > batch_tokens)
      batches.emplace_back();
    batches.back().push_back(i);
  }
  return batches;
}

torch::Tensor embed_texts(TextEncoder& encoder, const std::vector<std::string>& texts, int64_t batch_tokens) {
  const torch::NoGradGuard no_grad;
  std::vector<std::vector<int32_t>> rows(texts.size());
  std::vector<int64_t> lengths(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    rows[i] = token_ids(encoder, texts[i]);
    lengths[i] = static_cast<int64_t>(rows[i].size());
  }
  torch::Tensor result = torch::empty({static_cast<int64_t>(texts.size()), encoder.bert->config.hidden_size});
  for (const auto& batch : batches_by_length(lengths, batch_tokens)) {
    std::vector<std::vector<int32_t>> some;
    for (const int64_t i : batch) some.push_back(rows[static_cast<size_t>(i)]);
    result.index_copy_(0, torch::tensor(batch), embed(encoder, some));
  }
  return result;
}

}  // namespace lighten
