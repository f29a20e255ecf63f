// lighten run: one prompt, or a chat on the terminal.
#include <iostream>

#include "lighten/apps/lighten/verbs.h"
#include "lighten/data/packages.h"
#include "lighten/runtime/chat.h"

namespace lighten {

Verb run_verb(CLI::App& root) {
  Verb verb = make_verb(root, "run", "answers a prompt, or chats on the terminal (without torch: lighten-run)",
                        "  lighten run out/light                                  chat; Ctrl-D ends it\n"
                        "  lighten run out/light -p \"Explain what a hash table is.\" -n 64\n"
                        "  lighten run gemma3-270m -p \"Once upon a time\" --raw --temperature 0.8 --top-p 0.95 --seed 7\n"
                        "  lighten run out/light --prompts questions.txt --parallel 8 > answers.jsonl\n");
  auto options = std::make_shared<RunOptions>();
  verb.app->add_option("MODEL", options->model, "folder, .gguf or data id")->required();
  verb.app->add_option("-p,--prompt", options->prompt,
                       "answer this and end; without it: chat, line by line from standard input");
  verb.app
      ->add_option("--prompts", options->prompts,
                   "answer every line of this file (.jsonl: strings or {\"prompt\": ...}), several at once; a JSON line comes "
                   "out for each as it is done, \"index\" counts prompts from 0")
      ->excludes("--prompt");
  verb.app->add_option("--stop", options->stop, "end the answer before this text (may be given several times)")
      ->allow_extra_args(false);
  bind_options(*verb.app, describe(*options), "Options", {{"max-tokens", "n"}});
  verb.run = [options, common = verb.common] {
    options->model = resolve_model(options->model).string();
    options->sampling.seed = common->seed;
    options->threads = common->threads;
    options->json = common->json;
    return run_command(*options, std::cin, std::cout);
  };
  return verb;
}

}  // namespace lighten
