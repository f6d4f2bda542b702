/* The presets: models/presets/NAME.json, compiled in by way of a generated table. */
#include <stdio.h>
#include <string.h>

#include "models/config.h"

struct preset {
    const char *name;
    const char *json;
};

static const struct preset PRESETS[] = {
#include "presets.inc"
};
enum { N_PRESETS = sizeof PRESETS / sizeof *PRESETS };

const char *qd_model_preset_name(int i)
{
    return i >= 0 && i < N_PRESETS ? PRESETS[i].name : NULL;
}

/* "Qwen3-0.6B" or "0.6B" */
static bool name_matches(const char *preset, const char *name)
{
    static const char family[] = "Qwen3-";
    size_t skip = sizeof family - 1;
    return strcmp(preset, name) == 0 ||
           (strncmp(preset, family, skip) == 0 && strcmp(preset + skip, name) == 0);
}

qd_status qd_model_config_preset(const char *name, struct qd_model_config *out, char *err, size_t errlen)
{
    for (int i = 0; i < N_PRESETS; i++) {
        if (!name_matches(PRESETS[i].name, name)) continue;
        QD_TRY(qd_model_config_parse(PRESETS[i].json, strlen(PRESETS[i].json), PRESETS[i].name, out, err,
                                     errlen));
        snprintf(out->name, sizeof out->name, "%s", PRESETS[i].name);
        return QD_OK;
    }
    char names[256];
    size_t used = 0;
    for (int i = 0; i < N_PRESETS && used < sizeof names; i++)
        used +=
            (size_t)snprintf(names + used, sizeof names - used, "%s%s", i > 0 ? ", " : "", PRESETS[i].name);
    return qd_fail(QD_ERR_NOT_FOUND, err, errlen, "no preset %.100s; there are %s", name, names);
}
