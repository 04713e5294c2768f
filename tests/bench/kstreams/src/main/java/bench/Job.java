package bench;

import com.fasterxml.jackson.annotation.JsonFormat;
import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The reduced job in Kafka Streams: one store with cache and changelog, shared by two processors.
 *
 * <p>At least once, one thread, everything as Kafka Streams has it but the commit interval, which is that of the other
 * peers. Times of the bench's events are written alike, so they compare as text.
 */
public final class Job {
  private static final String STORE = "state";
  private static final String COMMIT_MS = "5000";
  private static final ObjectMapper JSON = new ObjectMapper();

  private Job() {}

  /** What the job reads of a consent change. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  public static final class Change {
    public String event_id;
    public String channel;
    public String account_id;
    public String priority;
    public String type;
    public String source;
    public String occurred_at;
    public long org_unit_id;

    String cell() {
      return channel + '|' + account_id + '|' + priority + '|' + org_unit_id + '|' + source;
    }
  }

  /** What the job reads of a request. */
  @JsonIgnoreProperties(ignoreUnknown = true)
  public static final class Request {
    public String request_id;
    public String channel;
    public String account_id;
    public String priority;
    public long org_unit_id;

    String cells() {
      return channel + '|' + account_id + '|' + priority + '|' + org_unit_id + '|';
    }
  }

  /** The latest word of a cell. */
  @JsonFormat(shape = JsonFormat.Shape.ARRAY)
  @JsonPropertyOrder({"type", "at"})
  public static final class Entry {
    public String type;
    public String at;

    public Entry() {}

    Entry(String type, String at) {
      this.type = type;
      this.at = at;
    }
  }

  public record Audit(String event_id, String key, String status) {}

  public record Decision(String request_id, boolean eligible, String reason) {}

  private abstract static class Keeper<I, O> implements Processor<String, I, String, O> {
    private ProcessorContext<String, O> context;
    KeyValueStore<String, Map<String, Entry>> cells;

    @Override
    public void init(ProcessorContext<String, O> context) {
      this.context = context;
      this.cells = context.getStateStore(STORE);
    }

    @Override
    public void process(Record<String, I> record) {
      context.forward(record.withValue(handle(record.key(), record.value())));
    }

    abstract O handle(String key, I value);
  }

  private static final class Apply extends Keeper<Change, Audit> {
    @Override
    Audit handle(String key, Change change) {
      Map<String, Entry> known = cells.get(key);
      Map<String, Entry> own = known == null ? new HashMap<>() : known;
      Entry before = own.get(change.cell());
      if (before != null && before.at.compareTo(change.occurred_at) > 0) {
        return new Audit(change.event_id, key, "STALE");
      }
      own.put(change.cell(), new Entry(change.type, change.occurred_at));
      cells.put(key, own);
      return new Audit(change.event_id, key, "APPLIED");
    }
  }

  private static final class Decide extends Keeper<Request, Decision> {
    @Override
    Decision handle(String key, Request request) {
      Map<String, Entry> known = cells.get(key);
      Entry latest = null;
      if (known != null) {
        for (Map.Entry<String, Entry> one : known.entrySet()) {
          boolean asked = one.getKey().startsWith(request.cells());
          if (asked && (latest == null || one.getValue().at.compareTo(latest.at) > 0)) {
            latest = one.getValue();
          }
        }
      }
      String reason = latest == null ? "NOT_SET" : latest.type;
      return new Decision(request.request_id, !reason.equals("OPTOUT"), reason);
    }
  }

  private static <T> Deserializer<T> reads(ObjectReader reader) {
    return (topic, data) -> {
      try {
        return data == null ? null : reader.readValue(data);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    };
  }

  private static <T> Serializer<T> writes(ObjectWriter writer) {
    return (topic, value) -> {
      try {
        return value == null ? null : writer.writeValueAsBytes(value);
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    };
  }

  private static Topology topology(String prefix) {
    TypeReference<HashMap<String, Entry>> kind = new TypeReference<>() {};
    Serde<Map<String, Entry>> values = Serdes.serdeFrom(writes(JSON.writerFor(kind)), reads(JSON.readerFor(kind)));
    return new Topology()
        .addSource("changes", new StringDeserializer(), Job.<Change>reads(JSON.readerFor(Change.class)), prefix + "changes")
        .addSource("requests", new StringDeserializer(), Job.<Request>reads(JSON.readerFor(Request.class)), prefix + "requests")
        .addProcessor("apply", Apply::new, "changes")
        .addProcessor("decide", Decide::new, "requests")
        .addStateStore(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(STORE), Serdes.String(), values)
                .withCachingEnabled()
                .withLoggingEnabled(Map.of()),
            "apply",
            "decide")
        .addSink("audit", prefix + "audit", new StringSerializer(), writes(JSON.writerFor(Audit.class)), "apply")
        .addSink("decisions", prefix + "decisions", new StringSerializer(), writes(JSON.writerFor(Decision.class)), "decide");
  }

  /** Runs until SIGTERM. */
  public static void main(String[] args) throws InterruptedException {
    Map<String, String> env = System.getenv();
    String prefix = env.get("BENCH_PREFIX");
    Properties options = new Properties();
    options.put(StreamsConfig.APPLICATION_ID_CONFIG, prefix + "job");
    options.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, env.get("BENCH_BOOTSTRAP"));
    options.put(StreamsConfig.STATE_DIR_CONFIG, env.get("BENCH_STATE"));
    options.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, COMMIT_MS);
    options.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
    // A worker of the next phase starts at once.
    options.put(StreamsConfig.consumerPrefix("internal.leave.group.on.close"), true);
    KafkaStreams streams = new KafkaStreams(topology(prefix), options);
    CountDownLatch ended = new CountDownLatch(1);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> {
      streams.close();
      ended.countDown();
    }));
    streams.start();
    ended.await();
  }
}
