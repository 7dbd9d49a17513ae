#!/bin/sh
# Plays the program that trains, for tests: called as `trainer.sh ANSWERS --data FILE --config FILE --out FOLDER --json`, it
# does what the training file's first line says. ANSWERS is a folder in which it notes its starts.
answers=$1; shift
while [ $# -gt 0 ]; do
    case $1 in --data) data=$2 ;; --config) config=$2 ;; --out) out=$2 ;; esac
    shift
done
echo "$$" >> "$answers/starts"
cp "$config" "$answers/config.toml"
[ -n "$OSSIA_DATABASE_URL" ] && echo leaked >> "$answers/leaked"
play=$(head -n 1 "$data")
steps=6

say() { printf '%s\n' "$1"; }
adapter() {
    mkdir -p "$1.tmp"
    echo '{}' > "$1.tmp/adapter_config.json"
    echo "step $2" > "$1.tmp/adapter_model.safetensors"
    rm -rf "$1"
    mv "$1.tmp" "$1"
}
end_saved() {
    say "{\"event\":\"ended\",\"why\":\"stopped\",\"step\":$step}"
    exit 75
}

case $play in
    *wrong*) say "{\"event\":\"failed\",\"error\":\"$PWD/$data: line 3: wanted JSON\"}"; exit 1 ;;
    *usage*) echo "error: unexpected argument" >&2; exit 2 ;;
esac

mkdir -p "$out/checkpoints"
step=$(ls "$out/checkpoints" | sed 's/step-0*//' | sort -n | tail -n 1)
step=${step:-0}
trap end_saved TERM
case $play in *deaf*) trap '' TERM ;; esac
# A resumed log begins anew after the checkpoint.
touch "$out/metrics.jsonl"
head -n "$step" "$out/metrics.jsonl" > "$out/cut" && mv "$out/cut" "$out/metrics.jsonl"
say "{\"event\":\"begins\",\"step\":$step,\"steps\":$steps,\"epochs\":3.0,\"examples\":2}"

while [ "$step" -lt $steps ]; do
    case $play in
        *hang*) [ "$step" -eq 2 ] && while :; do sleep 0.05; done ;;
        *crash*) [ "$step" -eq 3 ] && [ ! -e "$answers/crashed" ] && touch "$answers/crashed" && kill -9 $$ ;;
        *fall*) [ "$step" -eq 2 ] && kill -9 $$ ;;
        *slow*) sleep 0.4 ;;
    esac
    step=$((step + 1))
    say "{\"step\":$step,\"tokens\":$((step * 100)),\"loss\":1.$step,\"elapsed_s\":$step}" >> "$out/metrics.jsonl"
    adapter "$out/checkpoints/step-$(printf %08d "$step")" "$step"
done
case $play in *empty*) ;; *) adapter "$out/adapter" "$step" ;; esac
say "{\"event\":\"ended\",\"why\":\"complete\",\"step\":$step}"
