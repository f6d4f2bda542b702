#!/bin/sh
# generate, tokenize, eval: text and ids in, text, ids and logits out.
. tests/e2e/lib.sh

generates_the_text_alone() {
    exits 0 "$QDYNO" generate --model "$TINY" --prompt 'Once upon a time' --max-tokens 16
    cp "$OUT" "$TMP/text"
    [ "$(tr '\n' ' ' <"$OUT" | wc -w)" -ge 5 ] || fail "no text"
    out_lacks qdyno
    printf 'Once upon a time\n' >"$TMP/prompt"
    exits 0 "$QDYNO" generate --model "$TINY" --max-tokens 16 <"$TMP/prompt"
    same "$TMP/text" "$OUT"
}

a_text_ends_before_a_stop_string() {
    exits 0 "$QDYNO" generate --model "$TINY" --prompt 'Once upon a time' --max-tokens 60
    cp "$OUT" "$TMP/text"
    # Pieces of the text, whatever tokens they cut.
    for stop in . 'The ch' 'ldren were n' 'so very much' 't know," said Cy' "we'll g"; do
        exits 0 "$QDYNO" generate --model "$TINY" --prompt 'Once upon a time' --max-tokens 60 --stop "$stop"
        awk -v stop="$stop" '{ text = text $0 "\n" } END { printf "%s\n", substr(text, 1, index(text, stop) - 1) }' \
            "$TMP/text" >"$TMP/expected"
        [ "$(wc -c <"$TMP/expected")" -lt "$(wc -c <"$TMP/text")" ] || fail "\"$stop\" is not in the text"
        same "$TMP/expected" "$OUT"
    done
    # The second of two, long before the last token.
    exits 0 "$QDYNO" generate --model "$TINY" --prompt 'Once upon a time' --max-tokens 4000 --ignore-eos \
        --stop never-said --stop "$stop"
    same "$TMP/expected" "$OUT"
    exits 0 "$QDYNO" generate --model "$TINY" --prompt 'Once upon a time' --max-tokens 60 --stop 'never said'
    same "$TMP/text" "$OUT"
    refuses 2 '--stop: an empty text' "$QDYNO" generate --model "$TINY" --prompt a --stop ''
    refuses 2 '--stop: more than 8' "$QDYNO" generate --model "$TINY" --prompt a --stop 1 --stop 2 --stop 3 --stop 4 \
        --stop 5 --stop 6 --stop 7 --stop 8 --stop 9
}

# The first 16 greedy tokens of this prompt are certain: the ranks' other order of sums cannot turn them.
ranks_generate_the_same_text() {
    exits 0 "$QDYNO" generate --model "$TINY" --prompt 'Once upon a time' --max-tokens 16
    cp "$OUT" "$TMP/text"
    for tp in 2 4 8; do
        exits 0 "$QDYNO" generate --model "$TINY" --prompt 'Once upon a time' --max-tokens 16 --tp "$tp"
        same "$TMP/text" "$OUT"
    done
}

a_seed_gives_the_same_text_again() {
    sample() { exits 0 "$QDYNO" generate --model "$TINY" --prompt 'The' --max-tokens 24 --temperature 1 --seed "$1"; }
    sample 7
    cp "$OUT" "$TMP/seven"
    sample 7
    same "$TMP/seven" "$OUT"
    sample 8
    ! cmp -s "$TMP/seven" "$OUT" || fail "another seed gives the same text"
}

chat_is_the_rendered_prompt() {
    rendered='<|im_start|>user
Who is there?<|im_end|>
<|im_start|>assistant
'
    exits 0 "$QDYNO" generate --model "$TINY" --prompt "$rendered" --max-tokens 12
    cp "$OUT" "$TMP/text"
    exits 0 "$QDYNO" generate --model "$TINY" --chat --prompt 'Who is there?' --max-tokens 12
    same "$TMP/text" "$OUT"
    exits 0 "$QDYNO" generate --model "$TINY" --prompt "$rendered<think>

</think>

" --max-tokens 12
    cp "$OUT" "$TMP/text"
    exits 0 "$QDYNO" generate --model "$TINY" --chat --enable-thinking false --prompt 'Who is there?' --max-tokens 12
    same "$TMP/text" "$OUT"
}

generate_refuses_what_gives_no_text() {
    refuses 2 'generate: the prompt has 0 tokens' "$QDYNO" generate --model "$TINY" </dev/null
    printf 'ab\377' >"$TMP/prompt"
    refuses 2 'generate: byte 2: invalid UTF-8' "$QDYNO" generate --model "$TINY" <"$TMP/prompt"
    refuses 2 'nowhere: no such folder' "$QDYNO" generate --model nowhere --prompt a
    refuses 2 'micro: no such folder' "$QDYNO" generate --model micro --load-format dummy --prompt a
    refuses 2 '--enable-thinking is of --chat' "$QDYNO" generate --model "$TINY" --prompt a --enable-thinking true
    refuses 2 'the device null makes no text' "$QDYNO" generate --model "$TINY" --prompt a --device null
    cp -r "$TINY" "$TMP/plain"
    rm "$TMP/plain/tokenizer_config.json"
    refuses 2 "$TMP/plain/tokenizer_config.json: No such file" "$QDYNO" generate --model "$TMP/plain" --prompt a --chat
    refuses 2 'max_model_len' "$QDYNO" generate --model "$TINY" --prompt 'a b c d e f g h i j k l' --max-model-len 4
}

tokenize_goes_both_ways() {
    printf 'It was \000 dark,\r\n\tcaf\303\251 \360\237\230\200 <|im_end|>\n' >"$TMP/text"
    exits 0 "$QDYNO" tokenize --model "$TINY" <"$TMP/text"
    cp "$OUT" "$TMP/ids"
    [ "$("$JSON" "$TMP/ids")" -gt 10 ] || fail "too few ids"
    exits 0 "$QDYNO" tokenize --model "$TINY" --decode <"$TMP/ids"
    same "$TMP/text" "$OUT"
    exits 0 "$QDYNO" tokenize --model "$TINY" --decode --skip-special-tokens <"$TMP/ids"
    out_lacks '<|im_end|>'
}

tokenize_takes_lines() {
    printf '"one"\n"two\\u0000"\n' >"$TMP/lines"
    exits 0 "$QDYNO" tokenize --model "$TINY" --jsonl <"$TMP/lines"
    cp "$OUT" "$TMP/ids"
    equal 2 "$(wc -l <"$TMP/ids")"
    exits 0 "$QDYNO" tokenize --model "$TINY" --jsonl --decode <"$TMP/ids"
    same "$TMP/lines" "$OUT"
}

tokenize_renders_chat() {
    echo '[{"role": "user", "content": "Hi"}]' >"$TMP/messages"
    exits 0 "$QDYNO" tokenize --model "$TINY" --chat <"$TMP/messages"
    equal '<|im_start|>user
Hi<|im_end|>
<|im_start|>assistant' "$("$JSON" "$OUT" text)"
    [ "$("$JSON" "$OUT" ids)" -gt 5 ] || fail "no ids"
    exits 0 "$QDYNO" tokenize --model "$TINY" --chat --no-generation-prompt <"$TMP/messages"
    equal '<|im_start|>user
Hi<|im_end|>' "$("$JSON" "$OUT" text)"
    cp -r "$TINY" "$TMP/other"
    sed -i 's/im_start/im_begin/' "$TMP/other/tokenizer_config.json"
    refuses 2 'template' "$QDYNO" tokenize --model "$TMP/other" --chat <"$TMP/messages"
}

tokenize_refuses_bytes_that_are_no_text() {
    printf 'abc\300' >"$TMP/text"
    refuses 2 'tokenize: byte 3: invalid UTF-8' "$QDYNO" tokenize --model "$TINY" <"$TMP/text"
    printf '[1, -2]' >"$TMP/text"
    refuses 2 'element 1 is no token id' "$QDYNO" tokenize --model "$TINY" --decode <"$TMP/text"
    refuses 2 'exclude each other' "$QDYNO" tokenize --model "$TINY" --decode --chat <"$TMP/text"
    refuses 2 'no such folder' "$QDYNO" tokenize --model nowhere <"$TMP/text"
}

# The first prompt of the file and its result, known from Hugging Face.
eval_prints_what_the_golden_has() {
    model=$GOLDENS/tied-gqa2-hd64
    exits 0 "$QDYNO" eval --model "$model" --tokens "$model/golden.json" --numerics hf
    cp "$OUT" "$TMP/lines"
    n=$("$JSON" "$model/golden.json" prompts)
    equal "$n" "$("$JSON" -l "$TMP/lines" n_tokens | wc -l)"
    for i in $(seq 0 $((n - 1))); do
        line=$TMP/line
        sed -n "$((i + 1))p" "$TMP/lines" >"$line"
        length=$("$JSON" "$model/golden.json" "prompts/$i")
        equal "$length" "$("$JSON" "$line" n_tokens)"
        equal "$length" "$("$JSON" "$line" positions)"
        equal 8 "$("$JSON" "$line" positions/0/top)"
        equal "$("$JSON" "$line" positions/0/id)" "$("$JSON" "$line" positions/0/top/0/0)"
    done
    equal 343 "$(sed -n 1p "$TMP/lines" | "$JSON" - positions/0/id)"
    equal 0.25 "$(sed -n 1p "$TMP/lines" | "$JSON" - positions/0/margin)"
    sed -n 2p "$TMP/lines" | "$JSON" - nll | awk '{ exit !($1 > 11.6 && $1 < 11.9) }' || fail "nll of prompt 1"
}

eval_limits_positions_and_rivals() {
    echo '{"prompts": [[5, 6, 7, 8], [9]]}' >"$TMP/tokens.json"
    exits 0 "$QDYNO" eval --model "$TINY" --tokens "$TMP/tokens.json"
    whole=$("$JSON" -l "$OUT" nll)
    last=$(sed -n 1p "$OUT" | "$JSON" - positions/3/lse)
    exits 0 "$QDYNO" eval --model "$TINY" --tokens - --last 2 --top 1 <"$TMP/tokens.json"
    equal "$whole" "$("$JSON" -l "$OUT" nll)"
    equal "2
1" "$("$JSON" -l "$OUT" positions)"
    equal 1 "$(sed -n 1p "$OUT" | "$JSON" - positions/0/top)"
    equal "$last" "$(sed -n 1p "$OUT" | "$JSON" - positions/1/lse)"
    cat "$TMP/tokens.json" | "$QDYNO" eval --model "$TINY" --tokens - --last 2 --top 1 2>/dev/null | cmp - "$OUT"
}

eval_refuses_bad_tokens() {
    bad() {
        printf '%s' "$2" >"$TMP/tokens.json"
        refuses 2 "$TMP/tokens.json: $1" "$QDYNO" eval --model "$TINY" --tokens "$TMP/tokens.json"
    }
    bad 'prompts[1]: item 2 is no id of the vocabulary (0 .. 2055)' '{"prompts": [[1], [1, 2, 2056]]}'
    bad 'prompts[0]: item 0 is no id of the vocabulary' '{"prompts": [[-1]]}'
    bad 'prompts[0]: item 1 is no id of the vocabulary' '{"prompts": [[1, 1.5]]}'
    bad 'prompts[0]: item 0 is no id of the vocabulary' '{"prompts": [["the"]]}'
    bad 'prompts[0]: 0 ids' '{"prompts": [[]]}'
    bad 'prompts[1]: no list of ids' '{"prompts": [[1], 2]}'
    bad 'no list "prompts"' '{"prompts": 1}'
    bad 'no list "prompts"' '[[1]]'
    bad 'byte 0: expected a value' 'Once upon a time'
    bad 'byte 0: the text ends too early' ''
    echo '{"prompts"' >"$TMP/tokens.json"
    refuses 2 'standard input: byte 11: ' "$QDYNO" eval --model "$TINY" --tokens - <"$TMP/tokens.json"
    refuses 2 'nowhere.json: No such file' "$QDYNO" eval --model "$TINY" --tokens nowhere.json
    echo '{"prompts": [[1]]}' >"$TMP/tokens.json"
    refuses 2 'the device null has no logits' "$QDYNO" eval --model "$TINY" --tokens "$TMP/tokens.json" --device null
}

eval_judges_by_what_the_golden_expects() {
    model=$GOLDENS/tied-gqa2-hd64
    exits 0 "$QDYNO" eval --model "$model" --expect "$model/golden.json" --numerics hf
    equal "true bf16 13 0" "$("$JSON" "$OUT" passes) $("$JSON" "$OUT" kind) $("$JSON" "$OUT" prompts) $("$JSON" "$OUT" prompts_too_long)"
    exits 0 "$QDYNO" eval --model "$model" --expect "$model/golden.json" --numerics hf --tp 2
    equal bf16_tp "$("$JSON" "$OUT" kind)"
    exits 0 "$QDYNO" eval --model "$model" --expect "$model/golden.json" --max-model-len 40
    equal "fused 8 5" "$("$JSON" "$OUT" kind) $("$JSON" "$OUT" prompts) $("$JSON" "$OUT" prompts_too_long)"
    # Limits that no other order of sums keeps.
    sed 's/"tolerance":{"bf16":[0-9.]*/"tolerance":{"bf16":1e-9/' "$model/golden.json" >"$TMP/golden.json"
    exits 1 "$QDYNO" eval --model "$model" --expect "$TMP/golden.json" --numerics hf
    equal false "$("$JSON" "$OUT" passes)"
    "$JSON" "$OUT" reason | grep -q '^prompt 0 position 0: a top logit is'
    refuses 2 "golden.json: it is of a vocabulary of 515 ids, the model has 2056" \
        "$QDYNO" eval --model "$TINY" --expect "$model/golden.json"
    refuses 2 'nowhere.json: No such file' "$QDYNO" eval --model "$TINY" --expect nowhere.json
    refuses 2 'either --tokens or --expect' "$QDYNO" eval --model "$TINY" --expect a --tokens b
    refuses 2 'the device null has no logits' "$QDYNO" eval --model "$model" --expect "$model/golden.json" --device null
}

# A weight that overflows bf16 makes NaN of every logit; the output stays JSON.
eval_stays_json_without_numbers() {
    cp -r "$GOLDENS/mha-oddsize-f32" "$TMP/inf"
    size=$(wc -c <"$TMP/inf/model.safetensors")
    i=0
    while [ $i -lt 512 ]; do
        printf '\377\377\177\177'
        i=$((i + 1))
    done | dd of="$TMP/inf/model.safetensors" bs=1 seek=$((size / 2 / 4 * 4)) conv=notrunc 2>/dev/null
    echo '{"prompts": [[1, 2, 3]]}' >"$TMP/tokens.json"
    exits 0 "$QDYNO" eval --model "$TMP/inf" --tokens "$TMP/tokens.json"
    err_has 'too large for bf16'
    equal 3 "$("$JSON" "$OUT" positions)"
    equal null "$("$JSON" "$OUT" nll)"
}

check generates_the_text_alone
check a_text_ends_before_a_stop_string
check ranks_generate_the_same_text
check a_seed_gives_the_same_text_again
check chat_is_the_rendered_prompt
check generate_refuses_what_gives_no_text
check tokenize_goes_both_ways
check tokenize_takes_lines
check tokenize_renders_chat
check tokenize_refuses_bytes_that_are_no_text
check eval_prints_what_the_golden_has
check eval_limits_positions_and_rivals
check eval_refuses_bad_tokens
check eval_judges_by_what_the_golden_expects
check eval_stays_json_without_numbers
finish
