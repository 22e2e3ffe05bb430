/* explorer_assets.c: the files of router/http/explorer/, in the program. */
#include <string.h>

#include "router/http/explorer.h"
#include "runtime/base/check.h"

/* The assembler reads the file; the Makefile knows that this depends on it. */
#define EMBED(symbol, path)                        \
    extern const char symbol[], symbol##_end[];    \
    __asm__(".pushsection .rodata\n" #symbol ":\n" \
            ".incbin \"router/http/explorer/" path "\"\n" #symbol "_end:\n.byte 0\n.popsection\n")

EMBED(asset_index, "index.html");
EMBED(asset_css, "explorer.css");
EMBED(asset_js, "explorer.js");
EMBED(asset_charts, "charts.js");
EMBED(asset_icon, "icon.svg");

static const struct asset assets[] = {
    {"index.html", "text/html; charset=utf-8", asset_index, asset_index_end},
    {"explorer.css", "text/css; charset=utf-8", asset_css, asset_css_end},
    {"explorer.js", "text/javascript; charset=utf-8", asset_js, asset_js_end},
    {"charts.js", "text/javascript; charset=utf-8", asset_charts, asset_charts_end},
    {"icon.svg", "image/svg+xml", asset_icon, asset_icon_end},
};

const struct asset *asset_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(assets); i++)
        if (strcmp(assets[i].name, name) == 0)
            return &assets[i];
    return NULL;
}
