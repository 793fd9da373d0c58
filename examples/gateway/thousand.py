"""A thousand sessions through the gateway, twenty at a time, and whether both sides count the same."""
import collections, concurrent.futures, json, os, re, sys, urllib.error, urllib.request

gateway = os.environ.get("GATEWAY", "http://127.0.0.1:8080")
operators = os.environ.get("OPERATORS", "http://127.0.0.1:9090")
sandbox = os.environ.get("SANDBOX", "http://127.0.0.1:8484")
workflow = "99999999-2222-4333-8444-555555555555"
run = os.urandom(4).hex()

def create(number):
    name = f"user-{run}-{number}"
    body = {"workflow_id": workflow, "vendor_data": name, "metadata": {"operation_id": name}}
    request = urllib.request.Request(f"{gateway}/v3/session/", json.dumps(body).encode())
    request.add_header("content-type", "application/json")
    try:
        with urllib.request.urlopen(request, timeout=130) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code

def read(url):
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.read().decode()
    except urllib.error.URLError as error:
        sys.exit(f"{url}: {error.reason}; are the sandbox and the gateway running?")

def counts():
    """What gateway and sandbox have counted so far, each in the order of the rows below."""
    metrics, stats = read(f"{operators}/metrics"), json.loads(read(f"{sandbox}/_sandbox/stats"))

    def counted(name, label=""):
        """The sum of all series of a metric that have a label."""
        series = re.findall(rf"^{name}\{{(.*)\}} (\d+)$", metrics, re.MULTILINE)
        return sum(int(value) for labels, value in series if label in labels)

    attempts = [counted("didit_attempts_total", label) for label in ("", 'status_class="5xx"', 'outcome="throttled"')]
    arrivals = [sum(stats["arrivals"].values()), stats["faults"].get("status", 0), stats["throttled"]]
    twice = stats["duplicates_by_vendor_data"] + stats["duplicates_by_operation_id"]
    return [counted("didit_calls_total", 'status_class="2xx"'), *attempts], [stats["sessions_made"], *arrivals, twice]

before = counts()
with concurrent.futures.ThreadPoolExecutor(20) as pool:
    answers = collections.Counter(pool.map(create, range(1000)))
by_gateway, by_sandbox = ([now - then for now, then in zip(*both)] for both in zip(counts(), before))

print(f"{'':22}{'script':>8}{'gateway':>9}{'sandbox':>9}")
names = ["calls that succeeded", "requests to Didit", "  of these 503", "  of these 429", "sessions made twice"]
for name, script, ours, theirs in zip(names, [answers[201], *[""] * 4], [*by_gateway, ""], by_sandbox):
    print(f"{name:22}{script:>8}{ours:>9}{theirs:>9}")
*agreed, throttled, twice = by_sandbox
good = by_gateway == [*agreed, throttled] and answers == {201: 1000} and agreed[0] == 1000 and throttled == twice == 0
print("they agree" if good else f"THEY DO NOT AGREE; answers by status: {dict(answers)}")
sys.exit(not good)
