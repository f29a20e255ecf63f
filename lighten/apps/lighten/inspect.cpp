// lighten inspect: what is in a model.
#include <iostream>
#include <map>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/progress.h"
#include "lighten/base/table.h"
#include "lighten/data/packages.h"
#include "lighten/formats/chat_template.h"
#include "lighten/formats/safetensors.h"
#include "lighten/formats/tokenizer.h"
#include "lighten/formats/weights.h"
#include "lighten/runtime/light_model.h"

namespace lighten {
namespace {

/// What every container is reduced to before it is printed.
struct Contents {
  std::string container, licence, chat_template;
  std::optional<ModelConfig> config;
  std::vector<StoredTensor> tensors;
  std::shared_ptr<const Tokenizer> tokenizer;
  uint64_t size_on_disk = 0;
  Json method;
};

int64_t elements_of(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t extent : shape) n *= extent;
  return n;
}

std::string describe_spec(const LinearSpec& spec) {
  if (spec.bits == 32) return "F32";
  if (spec.bits == 16) return spec.bfloat ? "BF16" : "F16";
  const char* zero = spec.zero == PackedZero::symmetric ? "symmetric"
                     : spec.zero == PackedZero::integer ? "zero point"
                                                        : "minimum";
  const std::string group = spec.group_size ? fmt::format("g{}", spec.group_size) : "per channel";
  if (spec.codes == PackedCodes::trits) return fmt::format("ternary, {}", group);
  if (spec.codes == PackedCodes::levels) return fmt::format("{} bit, {}, {} levels", spec.bits, group, 1 << spec.bits);
  if (spec.bits == 1) return fmt::format("{} x 1 bit, {}, {}", spec.planes, group, zero);
  return fmt::format("{} bit, {}, {}", spec.bits, group, zero);
}

/// {"a": 1, "b": [2, 3]} -> "a 1, b 2; 3"
std::string words_of(const Json& json) {
  if (json.is_string()) return json.get<std::string>();
  if (json.is_number_float()) return fmt::format("{:.4g}", json.get<double>());
  if (!json.is_structured()) return json_text(json);
  std::vector<std::string> parts;
  for (const auto& [key, value] : json.items())
    parts.push_back(json.is_object() ? key + " " + words_of(value) : words_of(value));
  return fmt::format("{}", fmt::join(parts, json.is_object() ? ", " : "; "));
}

Contents open_light(const fs::path& path) {
  const LightModel model(path);
  Contents contents{fmt::format("light model, format {}", model.banded().empty() ? 1 : kLightFormatVersion),
                    model.config().licence,
                    model.chat_template(),
                    model.config(),
                    {},
                    model.tokenizer(),
                    model.size_on_disk(),
                    model.method()};
  const SafetensorsModel stored(path);
  for (const TensorShape& tensor : expected_tensors(model.config())) {
    if (const auto bands = model.banded().find(tensor.name); bands != model.banded().end()) {
      for (size_t i = 0; i < bands->second.bands.size(); ++i) {
        const LinearSpec& spec = bands->second.bands[i].spec;
        contents.tensors.push_back(
            {fmt::format("{}.band{}", tensor.name, i), {spec.rows, spec.columns}, describe_spec(spec), packed_bytes(spec)});
      }
      const auto tokens = static_cast<int64_t>(bands->second.places.size());
      contents.tensors.push_back({tensor.name + ".places", {tokens}, "I32", bands->second.places.size() * sizeof(int32_t)});
      continue;
    }
    const auto packed = model.packed().find(tensor.name);
    const TensorView* view = stored.find(tensor.name);
    std::string type = packed != model.packed().end() ? describe_spec(packed->second.spec)
                       : view                         ? std::string(dtype_name(view->dtype))
                                                      : "?";
    contents.tensors.push_back({tensor.name, tensor.shape, std::move(type), view ? view->bytes.size() : 0});
  }
  return contents;
}

/// A Hugging Face folder that is no decoder of ours (an encoder, say): what its files say by themselves.
Contents open_plain_folder(const fs::path& path) {
  Contents contents;
  const SafetensorsModel stored(path);
  contents.container = fmt::format("safetensors ({} shard{})", stored.shards().size(), stored.shards().size() == 1 ? "" : "s");
  for (const auto& [name, view] : stored.tensors())
    contents.tensors.push_back({name, view->shape, std::string(dtype_name(view->dtype)), view->bytes.size()});
  if (fs::exists(path / "tokenizer.json")) contents.tokenizer = Tokenizer::from_file(path / "tokenizer.json");
  contents.size_on_disk = size_on_disk(path);
  return contents;
}

Contents open_float(const fs::path& path) {
  std::unique_ptr<WeightSource> source;
  try {
    source = open_weights(path);
  } catch (const Error&) {
    if (!fs::is_directory(path) || !fs::exists(path / "model.safetensors")) throw;
    Contents contents = open_plain_folder(path);
    if (std::none_of(contents.tensors.begin(), contents.tensors.end(),
                     [](const StoredTensor& t) { return t.name.find("embeddings") != std::string::npos; }))
      throw;
    return contents;
  }
  return {source->container(), source->config().licence, source->chat_template(), source->config(),
          source->tensors(),   source->tokenizer(),      source->size_on_disk(),  {}};
}

/// "model.layers.7.mlp.up_proj.weight" -> "model.layers.*.mlp.up_proj.weight"
std::string pattern_of(const std::string& name) {
  std::string pattern;
  for (size_t i = 0; i < name.size();) {
    const size_t end = std::min(name.find('.', i), name.size());
    const std::string part = name.substr(i, end - i);
    pattern += (pattern.empty() ? "" : ".") +
               (!part.empty() && part.find_first_not_of("0123456789") == std::string::npos ? "*" : part);
    i = end + 1;
  }
  return pattern;
}

void print_tensors(const std::vector<StoredTensor>& tensors) {
  struct Group {
    int64_t count = 0, elements = 0;
    uint64_t bytes = 0;
  };
  std::map<std::tuple<std::string, std::string, std::string>, Group> groups;
  std::vector<std::tuple<std::string, std::string, std::string>> order;
  Group total;
  for (const StoredTensor& tensor : tensors) {
    const auto key = std::make_tuple(pattern_of(tensor.name), fmt::format("{}", fmt::join(tensor.shape, " x ")), tensor.type);
    if (!groups.contains(key)) order.push_back(key);
    Group& group = groups[key];
    for (Group* g : {&group, &total}) {
      ++g->count;
      g->elements += elements_of(tensor.shape);
      g->bytes += tensor.bytes;
    }
  }
  Table table({"tensor", "count", "shape", "type", "bits", "bytes"});
  const auto bits = [](const Group& g) {
    return g.elements ? fmt::format("{:.2f}", 8.0 * static_cast<double>(g.bytes) / static_cast<double>(g.elements)) : "-";
  };
  for (const auto& key : order) {
    const Group& g = groups.at(key);
    table.row({std::get<0>(key), fmt::format("{}", g.count), std::get<1>(key), std::get<2>(key), bits(g),
               human_bytes(static_cast<double>(g.bytes))});
  }
  table.row({"all", fmt::format("{}", total.count), fmt::format("{:.2f} M", static_cast<double>(total.elements) / 1e6), "",
             bits(total), human_bytes(static_cast<double>(total.bytes))});
  std::cout << table.text();
}

/// What --trim-vocab took out, as the light model's record says; "" if nothing.
std::string trim_text(const Json& method) {
  const Json record = method.is_object() ? method.value("vocabulary", Json()) : Json();
  if (!record.is_object() || !record.contains("tokens_before")) return "";
  std::string text = fmt::format(", trimmed from {} to what", json_text(record["tokens_before"]));
  for (const Json& file : record.value("corpus", Json::array()))
    if (file.is_object())
      text += fmt::format(" {} (sha256 {:.12})", file.value("file", std::string("?")), file.value("sha256", std::string("?")));
  text += record.value("corpus", Json::array()).size() == 1 ? " needs" : " need";
  const Json fill = record.value("fill", Json(0));
  return fill == 0 ? text : text + fmt::format(", filled up to {} of the same characters", json_text(fill));
}

std::string token_text(const Tokenizer& tokenizer, int32_t id) {
  return id < 0 ? "none" : fmt::format("{} ({})", tokenizer.token(id), id);
}

void print_facts(const std::string& name, const Contents& c) {
  Table table({name, c.container});
  if (c.config) {
    const ModelConfig& m = *c.config;
    const char* architectures[] = {"llama", "qwen2", "qwen3", "gemma3"};
    table.row({"architecture", architectures[static_cast<int>(m.architecture)]});
    table.row({"parameters", fmt::format("{:.1f} million", static_cast<double>(parameter_count(m)) / 1e6)});
    table.row({"blocks, width, MLP width", fmt::format("{}, {}, {}", m.layers, m.hidden_size, m.intermediate_size)});
    table.row({"heads, key/value heads, head width", fmt::format("{}, {}, {}", m.heads, m.kv_heads, m.head_dim)});
    table.row({"context", fmt::format("{} tokens{}", m.context_length,
                                      m.sliding_window ? fmt::format(", sliding window {}", m.sliding_window) : "")});
    table.row({"head", m.tied_head ? "tied to the embedding" : "of its own"});
  }
  table.row({"size of all files", human_bytes(static_cast<double>(c.size_on_disk))});
  if (c.tokenizer) {
    table.row({"vocabulary", fmt::format("{} tokens{}", c.tokenizer->size(), trim_text(c.method))});
    table.row({"begin, end",
               fmt::format("{}{}, {}", token_text(*c.tokenizer, c.tokenizer->bos()),
                           c.tokenizer->adds_bos() ? " before every text" : "", token_text(*c.tokenizer, c.tokenizer->eos()))});
  } else {
    table.row({"tokenizer", "none"});
  }
  const char* formats[] = {"none", "ChatML", "Llama 3", "Llama 2", "Gemma"};
  table.row(
      {"chat template", c.chat_template.empty() ? "none" : formats[static_cast<int>(detect_chat_format(c.chat_template))]});
  table.row({"licence", c.licence.empty() ? "not stated in the file" : c.licence});
  for (const auto& [key, value] : c.method.items())
    if (key != "vocabulary" && !value.empty()) table.row({key == "name" ? "made by" : "  " + key, words_of(value)});
  std::cout << table.text() << "\n";
}

Json to_json(const std::string& name, const Contents& c) {
  Json json = {{"model", name}, {"container", c.container}, {"size_bytes", c.size_on_disk}, {"licence", c.licence}};
  if (c.config) {
    json["parameters"] = parameter_count(*c.config);
    json["config"] = to_hf_config(*c.config);
  }
  if (c.tokenizer)
    json["tokenizer"] = {{"size", c.tokenizer->size()},
                         {"bos", c.tokenizer->bos()},
                         {"eos", c.tokenizer->eos()},
                         {"adds_bos", c.tokenizer->adds_bos()}};
  json["chat_template"] = c.chat_template;
  json["method"] = c.method;
  json["tensors"] = Json::array();
  for (const StoredTensor& t : c.tensors) {
    const int64_t n = elements_of(t.shape);
    json["tensors"].push_back({{"name", t.name},
                               {"shape", t.shape},
                               {"type", t.type},
                               {"bytes", t.bytes},
                               {"bits", n ? 8.0 * static_cast<double>(t.bytes) / static_cast<double>(n) : 0}});
  }
  return json;
}

}  // namespace

Verb inspect_verb(CLI::App& root) {
  Verb verb = make_verb(root, "inspect", "shows what is in a model: shapes, types, bits, bytes, tokenizer, licence",
                        "  lighten inspect smollm2-135m\n"
                        "  lighten inspect out/light --json contents.json\n");
  auto name = std::make_shared<std::string>();
  verb.app->add_option("MODEL", *name, "folder, .gguf or data id")->required();
  verb.run = [name, common = verb.common] {
    const fs::path path = resolve_model(*name);
    const bool light = fs::is_directory(path) && model_kind(path) == ModelKind::light;
    Contents contents = light ? open_light(path) : open_float(path);
    if (const DataEntry* entry = find_data(*name); entry && contents.licence.empty()) contents.licence = entry->licence;
    if (common->for_people()) {
      print_facts(*name, contents);
      print_tensors(contents.tensors);
    }
    write_json(*common, to_json(*name, contents));
    return 0;
  };
  return verb;
}

}  // namespace lighten
