#!/bin/sh
# doctor, and model directories that cannot be run: every message names the file and the reason.
. tests/e2e/lib.sh

# Leak checking dies now and then of what CUDA's libraries, opened and closed, had in thread-local storage.
export ASAN_OPTIONS=detect_leaks=0

doctor_knows_the_machine() {
    exits 0 "$QDYNO" doctor --device cpu
    for word in qdyno processor memory 'device     cpu: inference' 'device     null: scheduling only'; do out_has "$word"; done
    exits 0 "$QDYNO" doctor --device cpu --cpu-isa portable
    out_has 'cpu isa    portable'
}

# Bytes of a token's K and V: 2 x layers x KV heads of the rank x head_dim x 2; heads are copied beyond their number.
doctor_prints_the_bytes_of_a_rank() {
    exits 0 "$QDYNO" doctor --device cpu --model "$TINY"
    out_has 'KV 4096 B a token'
    exits 0 "$QDYNO" doctor --device cpu --model "$TINY" --tp 2
    out_has 'KV 2048 B a token'
    exits 0 "$QDYNO" doctor --device cpu --model "$TINY" --tp 8 --dp 2
    out_has 'KV 2048 B a token'
    out_has 'together   TP 8 x DP 2'
    for preset in Qwen3-0.6B Qwen3-1.7B Qwen3-4B Qwen3-8B Qwen3-14B Qwen3-32B micro; do
        exits 0 "$QDYNO" doctor --model "$preset" --tp 8 --device null
        out_has "model      $preset: "
    done
    out_has '2 layers, hidden 256, 8 heads, 2 KV heads, head_dim 128, ffn 512, vocabulary 515'
}

doctor_shows_the_arithmetic_of_what_does_not_fit() {
    exits 3 "$QDYNO" doctor --device cpu --model Qwen3-32B --memory-limit 8G --gpu-memory-utilization 0.5
    out_has 'per rank   weights'
    out_has 'KV 262144 B a token'
    err_has 'Qwen3-32B does not fit: weights 61.0'
    grep -qE 'activations [0-9.]+ GiB \+ KV pages 0.000 GiB = [0-9.]+ GiB > [0-9.]+ GiB \(.* x utilization 0.50\)' "$ERR" ||
        fail "no arithmetic"
}

doctor_refuses_ranks_that_do_not_divide() {
    exits 2 "$QDYNO" doctor --device cpu --model "$GOLDENS/tied-gqa2-hd64" --tp 8
    err_has '4 attention heads do not divide by TP 8'
    refuses 2 'is none of 1, 2, 4, 8' "$QDYNO" doctor --device cpu --model "$TINY" --tp 3
    exits 2 "$QDYNO" doctor --device cpu --model Qwen3-7B
    err_has 'Qwen3-7B is no folder, and no preset Qwen3-7B; there are Qwen3-0.6B'
}

# broken EXPECTED: refuses to run a copy of the tiny model on which `spoil` (a function) was let loose.
broken() {
    rm -rf "$TMP/model"
    cp -r "$TINY" "$TMP/model"
    chmod -R u+w "$TMP/model"
    spoil
    refuses 2 "$TMP/model$1" "$QDYNO" run --model "$TMP/model" --num-prompts 1 --input-len 4 --output-len 1
}

edit_config() { sed -i "$1" "$TMP/model/config.json"; }

shards_that_are_not_whole_are_refused() {
    spoil() { rm "$TMP/model/model-00002-of-00002.safetensors"; }
    broken '/model.safetensors.index.json: model.layers.2.input_layernorm.weight: is in model-00002-of-00002.safetensors, which is not there'
    spoil() { truncate -s 4000000 "$TMP/model/model-00002-of-00002.safetensors"; }
    broken '/model-00002-of-00002.safetensors: model.layers.3'
    err_has 'of data'
    spoil() { : >"$TMP/model/model-00001-of-00002.safetensors"; }
    broken '/model-00001-of-00002.safetensors: '
    spoil() { printf '\377\377\377\377\377\377\377\177' | dd of="$TMP/model/model-00001-of-00002.safetensors" conv=notrunc 2>/dev/null; }
    broken '/model-00001-of-00002.safetensors: '
    err_has 'header'
    spoil() { sed -i 's/model-00002-of-00002/..\/model-00002/' "$TMP/model/model.safetensors.index.json"; }
    broken '/model.safetensors.index.json: '
    spoil() { rm "$TMP"/model/*.safetensors "$TMP/model/model.safetensors.index.json"; }
    broken ': neither model.safetensors.index.json nor model.safetensors is there'
    spoil() { mkfifo "$TMP/fifo" && ln -sf "$TMP/fifo" "$TMP/model/model-00001-of-00002.safetensors"; }
    broken '/model-00001-of-00002.safetensors: '
    err_has 'regular file'
}

shapes_that_are_not_the_configs_are_refused() {
    spoil() { edit_config 's/"intermediate_size": 768/"intermediate_size": 512/'; }
    broken '/model-00001-of-00002.safetensors: model.layers.0.mlp.gate_proj.weight: shape [768, 256], config.json asks for [512, 256]'
    spoil() { edit_config 's/"num_hidden_layers": 4/"num_hidden_layers": 5/'; }
    broken '/model.safetensors.index.json: model.layers.4.input_layernorm.weight: missing from the checkpoint'
    spoil() { edit_config 's/"num_hidden_layers": 4/"num_hidden_layers": 3/; s/"max_window_layers": 4/"max_window_layers": 3/'; }
    broken '/model-00002-of-00002.safetensors: model.layers.3.'
}

configs_that_compute_something_else_are_refused() {
    spoil() { edit_config 's/Qwen3ForCausalLM/LlamaForCausalLM/'; }
    broken '/config.json: architectures: LlamaForCausalLM is not supported'
    spoil() { edit_config 's/"use_cache": true/"quantization_config": {"quant_method": "awq"}/'; }
    broken '/config.json: quantization_config: quantised checkpoints are not supported'
    spoil() { edit_config 's/"attention_bias": false/"attention_bias": true/'; }
    broken '/config.json: attention_bias: '
    spoil() { edit_config 's/"silu"/"gelu"/'; }
    broken '/config.json: hidden_act: gelu'
    spoil() {
        edit_config 's/"use_sliding_window": false/"use_sliding_window": true/; s/"max_window_layers": 4/"max_window_layers": 2/
            s/"sliding_window": null/"sliding_window": 64/'
    }
    broken '/config.json: '
    err_has 'window'
    spoil() { edit_config 's/"hidden_size": 256/"hidden_size": 256.5/'; }
    broken '/config.json: hidden_size: '
    spoil() { echo '{"architectures"' >"$TMP/model/config.json"; }
    broken '/config.json: byte '
    spoil() { rm "$TMP/model/config.json"; }
    broken '/config.json: No such file or directory'
}

tokenizers_that_are_not_whole_are_refused() {
    spoil() { truncate -s 60000 "$TMP/model/tokenizer.json"; }
    broken '/tokenizer.json: '
    spoil() { echo '{}' >"$TMP/model/tokenizer.json"; }
    broken '/tokenizer.json: '
}

# A snapshot as the Hugging Face cache keeps it: models--x/refs/main, snapshots/HASH with links into blobs.
a_hugging_face_cache_is_a_model() {
    cache=$TMP/models--qdyno--tiny
    mkdir -p "$cache/blobs" "$cache/snapshots/abc" "$cache/refs"
    printf abc >"$cache/refs/main"
    for file in "$TINY"/*; do
        cp "$file" "$cache/blobs/$(basename "$file").blob"
        ln -s "../../blobs/$(basename "$file").blob" "$cache/snapshots/abc/$(basename "$file")"
    done
    exits 0 "$QDYNO" generate --model "$TINY" --prompt a --max-tokens 4
    cp "$OUT" "$TMP/text"
    exits 0 "$QDYNO" generate --model "$cache" --prompt a --max-tokens 4
    same "$TMP/text" "$OUT"
    exits 0 "$QDYNO" generate --model "$cache/snapshots/abc" --prompt a --max-tokens 4
    same "$TMP/text" "$OUT"
}

check doctor_knows_the_machine
check doctor_prints_the_bytes_of_a_rank
check doctor_shows_the_arithmetic_of_what_does_not_fit
check doctor_refuses_ranks_that_do_not_divide
check shards_that_are_not_whole_are_refused
check shapes_that_are_not_the_configs_are_refused
check configs_that_compute_something_else_are_refused
check tokenizers_that_are_not_whole_are_refused
check a_hugging_face_cache_is_a_model
finish
