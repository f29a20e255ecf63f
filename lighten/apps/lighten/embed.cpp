// lighten embed: texts to unit vectors (.npy), by MiniLM or any BERT folder.
#include "lighten/apps/lighten/texts.h"
#include "lighten/apps/lighten/verbs.h"
#include "lighten/base/error.h"
#include "lighten/base/output_file.h"
#include "lighten/data/deb_sets.h"
#include "lighten/data/packages.h"
#include "lighten/features/text_features.h"
#include "lighten/formats/npy.h"
#include "lighten/formats/text_rows.h"

namespace lighten {
std::vector<std::string> read_texts(const std::string& name, const std::string& field) {
  if (fs::exists(name)) return read_text_rows(name, field);
  if (name == "deb-text" || name == "deb-graph") return deb_text_set().texts;
  if (name == "deb-tag") return deb_tag_set().texts;
  if (name == "deb-xml") return deb_xml_set().texts;
  if (name == "deb-pairs:queries") return deb_pairs_set().queries;
  if (name == "deb-pairs:documents") return deb_pairs_set().documents;
  throw_error<OptionError>(
      "{}: there is no such file. TEXTS is a text file (one text a line), a .jsonl, .csv or .tsv, or one of deb-text, deb-tag, "
      "deb-xml, deb-graph, deb-pairs:queries, deb-pairs:documents",
      name);
}

Verb embed_verb(CLI::App& root) {
  Verb verb = make_verb(root, "embed", "turns texts into unit vectors (.npy) with a sentence encoder",
                        "  lighten embed texts.txt -o f.npy              one text a line, all-MiniLM-L6-v2, 384 columns\n"
                        "  lighten embed rows.jsonl --field body -o f.npy\n"
                        "  lighten embed deb-text -o f.npy --model bert/  any BERT folder\n");
  struct Options {
    std::string texts, output, model = "minilm-l6", field = "text";
    int64_t max_tokens = 128;
    bool cache = true, force = false;
  };
  auto options = std::make_shared<Options>();
  verb.app->add_option("TEXTS", options->texts, "a text file (one text a line), a .jsonl, .csv or .tsv, or a data id")
      ->required();
  verb.app->add_option("-o,--output", options->output, "the .npy to write: float32 [texts, width]")
      ->required()
      ->type_name("FILE");
  verb.app->add_option("--model", options->model, "minilm-l6 (default) or a BERT folder")->type_name("MODEL");
  verb.app->add_option("--field", options->field, "of a .jsonl, .csv or .tsv: the field that holds the text (default text)");
  verb.app->add_option("--max-tokens", options->max_tokens, "longer texts are cut (default 128)")->check(CLI::Range(3, 512));
  verb.app->add_flag("--force", options->force, "replace an existing file");
  verb.app->add_flag("!--no-cache", options->cache, "neither read nor keep vectors in the cache folder");
  verb.run = [options, common = verb.common] {
    check_output_file(options->output, options->force);
    const std::vector<std::string> texts = read_texts(options->texts, options->field);
    if (texts.empty()) throw_error<FormatError>("{}: holds no text", options->texts);
    const FeatureOptions how{.max_tokens = options->max_tokens, .cache = options->cache};
    const Features features = options->model == "minilm-l6"
                                  ? minilm_features(texts, options->texts, how)
                                  : text_features(resolve_model(options->model), texts, options->texts, how);
    write_npy(options->output, {features.rows, features.columns}, features.values);
    if (common->for_people()) fmt::print("{}: {} x {}\n", options->output, features.rows, features.columns);
    write_json(*common, {{"texts", features.rows}, {"width", features.columns}, {"output", options->output}});
    return 0;
  };
  return verb;
}

}  // namespace lighten
